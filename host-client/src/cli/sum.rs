//! `guestline sum`: digests that the guest computes, printed as sha256sum(1) and b3sum(1) print theirs.

use std::path::PathBuf;

use guestline_client::{ChecksumAlgorithm, Vm};
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    failure::Trying,
    output::{hex, print, print_json, printable_path, put_bytes},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Compute BLAKE3 in place of SHA-256
    #[arg(long)]
    blake3: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Files in the guest
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    let (algorithm, word) = match arguments.blake3 {
        true => (ChecksumAlgorithm::Blake3, "blake3"),
        false => (ChecksumAlgorithm::Sha256, "sha256"),
    };
    let mut documents = Vec::new();
    for path in &arguments.paths {
        let checksum = vm.files().checksum(path, algorithm).await;
        let checksum = checksum.trying("read", path, vm)?;
        let digest = hex(&checksum.digest);
        if arguments.json {
            let mut object = Map::new();
            put_bytes(&mut object, "path", path.as_os_str());
            object.insert(word.into(), json!(digest));
            object.insert("size".into(), json!(checksum.size));
            documents.push(Value::Object(object));
        } else {
            print(format!("{digest}  {}\n", printable_path(path)).as_bytes())?;
        }
    }
    if arguments.json {
        print_json(&Value::Array(documents))?;
    }
    Ok(0)
}
