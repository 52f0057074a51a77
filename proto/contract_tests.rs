//! The comments of the `.proto` files are the API manual: here is seen that no rpc is without one, and that the values
//! which they name are there.

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// Numbers of google/protobuf/descriptor.proto: FileDescriptorProto.service and ServiceDescriptorProto.method.
const SERVICE: i32 = 6;
const METHOD: i32 = 2;

fn files() -> Vec<FileDescriptorProto> {
    let commented = include_bytes!(concat!(env!("OUT_DIR"), "/commented.bin"));
    FileDescriptorSet::decode(&commented[..]).unwrap().file
}

/// Each rpc, and the comment before it.
fn rpcs(files: &[FileDescriptorProto]) -> Vec<(String, &str)> {
    let mut found = Vec::new();
    // protobuf's own files come without comments, and have no services.
    for file in files.iter().filter(|file| !file.service.is_empty()) {
        let places = &file.source_code_info.as_ref().expect("kept").location;
        for (at, service) in (0..).zip(&file.service) {
            for (number, rpc) in (0..).zip(&service.method) {
                let path = [SERVICE, at, METHOD, number];
                let place = places.iter().find(|place| place.path == path);
                let comment = place.expect("it is in the file").leading_comments();
                found.push((format!("{}.{}", service.name(), rpc.name()), comment));
            }
        }
    }
    assert!(found.len() > 30, "only {} rpcs are there", found.len());
    found
}

#[test]
fn each_rpc_says_what_it_does() {
    let files = files();
    let mut silent = rpcs(&files);
    silent.retain(|(_, comment)| comment.trim().is_empty());
    assert!(silent.is_empty(), "without a comment: {silent:?}");
}

/// How the kernel's names begin that comments may use.
const KERNEL_PREFIXES: [&str; 2] = ["CLOCK_", "O_"];

/// The gRPC codes that no reason is named after.
const CODES: [&str; 3] = ["DATA_LOSS", "FAILED_PRECONDITION", "OUT_OF_RANGE"];

/// Reasons and modes are named without their enum's prefix, as in NOT_FOUND or CREATE_NEW; the kernel's names and gRPC's
/// codes are theirs.
#[test]
fn what_comments_name_in_capitals_is_a_value() {
    let files = files();
    let enums = files.iter().flat_map(|file| &file.enum_type);
    let values: Vec<&str> = enums
        .flat_map(|kind| &kind.value)
        .map(|value| value.name())
        .collect();
    for (rpc, comment) in rpcs(&files) {
        let words = comment.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let named = words.filter(|word| {
            word.contains('_') && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        });
        for word in named {
            if CODES.contains(&word) || KERNEL_PREFIXES.iter().any(|it| word.starts_with(it)) {
                continue;
            }
            let suffix = format!("_{word}");
            let known = values.iter().any(|value| value.ends_with(&suffix));
            assert!(known, "{rpc} names {word}, which is no value of an enum");
        }
    }
}
