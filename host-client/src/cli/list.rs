//! `guestline ls`.

use std::{io::Write, path::PathBuf};

use guestline_client::{DirEntry, Error, Vm};
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    failure::{Failure, Trying, explanation},
    output::{
        metadata_json, mode_text, print_json, printable_path, put_bytes, time_text, type_word,
    },
};

/// The deepest that the protocol lists.
const DEEPEST: u32 = 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Show modes, owners, sizes and times (UTC)
    #[arg(short)]
    long: bool,
    /// List all below
    #[arg(short = 'R', long)]
    recursive: bool,
    /// List so many levels
    #[arg(long, value_name = "LEVELS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: u32,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// The directory in the guest; the user's home otherwise
    #[arg(default_value = ".")]
    path: PathBuf,
}

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    let depth = if arguments.recursive {
        DEEPEST
    } else {
        arguments.depth
    };
    let path = &arguments.path;
    let mut stream = match vm.files().list(path, depth).await {
        // As ls(1): a file lists itself.
        Err(error) if error.reason() == Some(guestline_client::ErrorReason::NotADirectory) => {
            let metadata = vm.files().lstat(path).await.trying("list", path, vm)?;
            return file(&arguments, metadata);
        }
        listed => listed.trying("list", path, vm)?,
    };
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut code, mut documents) = (0, Vec::new());
    while let Some(entry) = stream.next().await.trying("list", path, vm)? {
        if let Some(error) = &entry.error {
            tell(&entry, error);
            code = 1;
        }
        if arguments.json {
            documents.push(document(&entry));
        } else {
            writeln!(stdout, "{}", line(&entry, arguments.long))?;
        }
    }
    stdout.flush()?;
    drop(stdout);
    if arguments.json {
        print_json(&Value::Array(documents))?;
    }
    Ok(code)
}

fn file(arguments: &Arguments, metadata: guestline_client::Metadata) -> Outcome {
    if arguments.json {
        let mut object = Map::new();
        put_bytes(&mut object, "path", arguments.path.as_os_str());
        object.extend(metadata_json(&metadata));
        print_json(&json!([object]))?;
        return Ok(0);
    }
    let name = printable_path(&arguments.path);
    let text = if arguments.long {
        long(&metadata, &name)
    } else {
        name
    };
    super::output::print(format!("{text}\n").as_bytes()).map(|()| 0)
}

fn tell(entry: &DirEntry, error: &Error) {
    let why = match error {
        Error::Operation {
            reason,
            errno,
            operation,
            message,
            ..
        } => explanation(*reason, *errno, operation, message),
        other => other.to_string(),
    };
    Failure::Told(format!(
        "cannot list {}: {why}",
        printable_path(&entry.path)
    ))
    .tell();
}

fn line(entry: &DirEntry, is_long: bool) -> String {
    let name = printable_path(&entry.path);
    match &entry.metadata {
        Some(metadata) if is_long => long(metadata, &name),
        None if is_long => format!("?????????? {name}"),
        _ => name,
    }
}

fn long(metadata: &guestline_client::Metadata, name: &str) -> String {
    let target = metadata.link_target.as_deref().map(printable_path);
    let arrow = target
        .map(|target| format!(" -> {target}"))
        .unwrap_or_default();
    format!(
        "{} {:>3} {:>5} {:>5} {:>10} {} {name}{arrow}",
        mode_text(metadata),
        metadata.hard_links,
        metadata.uid,
        metadata.gid,
        metadata.size,
        time_text(metadata.modified),
    )
}

fn document(entry: &DirEntry) -> Value {
    let mut object = Map::new();
    put_bytes(&mut object, "path", entry.path.as_os_str());
    object.insert("type".into(), json!(type_word(entry.file_type)));
    object.extend(
        entry
            .metadata
            .as_ref()
            .map(metadata_json)
            .unwrap_or_default(),
    );
    if let Some(error) = &entry.error {
        object.insert("error".into(), json!(error.to_string()));
    }
    object.into()
}
