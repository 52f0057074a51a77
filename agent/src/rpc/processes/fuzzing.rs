//! For fuzz/: the messages of Processes, as far as values of the domain.

use guestline_proto::v1::{AttachRequest, RunRequest, RunStart, SendSignal, StartRequest};
use prost::Message;

use super::request;
use crate::processes::ProcessSpec;

pub(crate) fn convert(bytes: &[u8]) {
    if let Ok(Ok(start)) = RunStart::decode(bytes).map(request::Start::try_from) {
        check(&start.process);
    }
    if let Ok(Ok((process, ring))) = StartRequest::decode(bytes).map(request::detached) {
        check(&process);
        assert!((1..=64 << 20).contains(&ring));
    }
    let _ = RunRequest::decode(bytes).map(request::run_input);
    let _ = AttachRequest::decode(bytes).map(request::attach_input);
    let _ = SendSignal::decode(bytes).map(request::signal);
}

/// What exec(3) takes has no NUL in it.
fn check(process: &ProcessSpec) {
    for (name, value) in &process.environment {
        assert!(!name.is_empty() && !name.contains(&0) && !name.contains(&b'='));
        assert!(!value.contains(&0));
    }
    assert!(process.umask <= 0o777);
}
