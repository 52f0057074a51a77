//! Compiles `proto/` with protox, so that nobody needs protoc. Writes the Rust code and the descriptor set that
//! the reflection service serves; and the same with its comments, for the test that each rpc has one.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 5] = ["errors", "files", "processes", "system", "network"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/guestline");
    let mut descriptors = protox::compile(
        FILES.map(|name| format!("guestline/v1/{name}.proto")),
        ["proto"],
    )?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .codec_path("crate::BoundedCodec")
        .compile_fds(descriptors.clone())?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("commented.bin"), descriptors.encode_to_vec())?;
    // The comments are in the generated Rust documentation; at run time they would only be ballast.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    Ok(())
}
