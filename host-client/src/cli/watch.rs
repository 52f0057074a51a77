//! `guestline watch`: a line for each change.

use std::path::PathBuf;

use guestline_client::{Change, Vm, WatchStream, Watched};
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    failure::{Failure, Trying},
    output::{print, print_json_line, printable_path, put_bytes},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Also watch all directories below, and those that are made later
    #[arg(short, long)]
    recursive: bool,
    /// Print one JSON document a line; the first says that the watch has begun
    #[arg(long)]
    json: bool,
    /// The directory in the guest; the user's home otherwise
    #[arg(default_value = ".")]
    path: PathBuf,
}

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    let Arguments {
        recursive,
        json,
        path,
    } = arguments;
    let stream = vm.files().watch(&path, recursive).await;
    let mut stream = stream.trying("watch", &path, vm)?;
    if json {
        print_json_line(&ready(&stream))?;
    } else if stream.refused() > 0 {
        let refused = stream.refused();
        eprintln!("guestline: {refused} directories may not be read, and are not watched");
    }
    while let Some(watched) = stream.next().await.trying("watch", &path, vm)? {
        if json {
            print_json_line(&document(&watched))?;
        }
        match watched {
            Watched::Changed { change, directory } if !json => {
                print(line(&change, directory).as_bytes())?;
            }
            Watched::Overflow if !json => {
                eprintln!("guestline: changes were lost: list again what you follow");
            }
            Watched::Gone => {
                let path = printable_path(&path);
                let text = format!("{path} is gone: it was removed, renamed or unmounted");
                Failure::Told(text).tell();
                return Ok(1);
            }
            Watched::Changed { .. } | Watched::Overflow => {}
        }
    }
    Ok(0)
}

fn ready(stream: &WatchStream) -> Value {
    json!({"event": "ready", "directories": stream.directories(), "refused": stream.refused()})
}

fn line(change: &Change, directory: bool) -> String {
    let slash = if directory { "/" } else { "" };
    let (word, path) = parts(change);
    let path = printable_path(path);
    match change {
        Change::Renamed { from, .. } => {
            format!("{word} {}{slash} -> {path}{slash}\n", printable_path(from))
        }
        _ => format!("{word} {path}{slash}\n"),
    }
}

fn document(watched: &Watched) -> Value {
    let (change, directory) = match watched {
        Watched::Changed { change, directory } => (change, directory),
        Watched::Overflow => return json!({"event": "overflow"}),
        Watched::Gone => return json!({"event": "gone"}),
    };
    let (word, path) = parts(change);
    let mut object = Map::new();
    object.insert("event".into(), json!(word));
    put_bytes(&mut object, "path", path.as_os_str());
    if let Change::Renamed { from, .. } = change {
        put_bytes(&mut object, "from", from.as_os_str());
    }
    object.insert("directory".into(), json!(directory));
    object.into()
}

fn parts(change: &Change) -> (&'static str, &PathBuf) {
    match change {
        Change::Created(path) => ("created", path),
        Change::Modified(path) => ("modified", path),
        Change::Attributes(path) => ("attributes", path),
        Change::Removed(path) => ("removed", path),
        Change::Renamed { to, .. } => ("renamed", to),
    }
}
