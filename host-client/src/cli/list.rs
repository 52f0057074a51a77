//! `guestline ls`.

use std::{collections::HashMap, io::Write, path::PathBuf};

use guestline_client::{DirEntry, Error, Vm};
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    failure::{Failure, Trying, explanation},
    output::{
        JsonList, metadata_json, mode_text, print_json, printable, printable_path, put_bytes,
        time_text, type_word,
    },
};

/// The deepest that the protocol lists.
const DEEPEST: u32 = 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Show modes, owners, sizes and times (UTC)
    #[arg(short)]
    long: bool,
    /// The same, with the numbers of owners and groups
    #[arg(short = 'n', long)]
    numeric: bool,
    /// Also list what is below, however deep
    #[arg(short = 'R', long)]
    recursive: bool,
    /// List so many levels of directories
    #[arg(long, value_name = "LEVELS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: u32,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// The directory in the guest; the user's home otherwise
    #[arg(default_value = ".")]
    path: PathBuf,
}

impl Arguments {
    fn is_long(&self) -> bool {
        self.long || self.numeric
    }
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
            let names = names(&arguments, vm).await;
            return file(&arguments, metadata, &names);
        }
        listed => listed.trying("list", path, vm)?,
    };
    let names = names(&arguments, vm).await;
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut code, mut documents) = (0, JsonList::default());
    while let Some(entry) = stream.next().await.trying("list", path, vm)? {
        if let Some(error) = &entry.error {
            tell(&entry, error);
            code = 1;
        }
        if arguments.json {
            documents.item(&mut stdout, &document(&entry))?;
        } else {
            writeln!(stdout, "{}", line(&entry, &arguments, &names))?;
        }
    }
    if arguments.json {
        documents.end(&mut stdout)?;
    }
    stdout.flush()?;
    Ok(code)
}

/// What the guest calls the numbers of its files.
#[derive(Debug, Default)]
struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

/// Numbers stay where the names are not to be had.
async fn names(arguments: &Arguments, vm: &Vm) -> Names {
    if !arguments.long || arguments.numeric || arguments.json {
        return Names::default();
    }
    let printed = |name: &std::ffi::OsStr| printable(name.as_encoded_bytes());
    let system = vm.system();
    let (users, groups) = tokio::join!(system.users(), system.groups());
    let mut names = Names::default();
    // Of several with one number the first, as getpwuid(3) has it.
    for user in users.into_iter().flatten() {
        let name = printed(&user.name);
        names.users.entry(user.uid).or_insert(name);
    }
    for group in groups.into_iter().flatten() {
        let name = printed(&group.name);
        names.groups.entry(group.gid).or_insert(name);
    }
    names
}

fn file(arguments: &Arguments, metadata: guestline_client::Metadata, names: &Names) -> Outcome {
    if arguments.json {
        let mut object = Map::new();
        put_bytes(&mut object, "path", arguments.path.as_os_str());
        object.extend(metadata_json(&metadata));
        print_json(&json!([object]))?;
        return Ok(0);
    }
    let name = printable_path(&arguments.path);
    let text = if arguments.is_long() {
        long(&metadata, &name, names)
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

fn line(entry: &DirEntry, arguments: &Arguments, names: &Names) -> String {
    let name = printable_path(&entry.path);
    match &entry.metadata {
        Some(metadata) if arguments.is_long() => long(metadata, &name, names),
        None if arguments.is_long() => format!("?????????? {name}"),
        _ => name,
    }
}

fn long(metadata: &guestline_client::Metadata, name: &str, names: &Names) -> String {
    let owner = |names: &HashMap<u32, String>, id: u32| match names.get(&id) {
        Some(name) => name.clone(),
        None => id.to_string(),
    };
    let target = metadata.link_target.as_deref().map(printable_path);
    let arrow = target
        .map(|target| format!(" -> {target}"))
        .unwrap_or_default();
    format!(
        "{} {:>3} {:<8} {:<8} {:>10} {} {name}{arrow}",
        mode_text(metadata),
        metadata.hard_links,
        owner(&names.users, metadata.uid),
        owner(&names.groups, metadata.gid),
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
