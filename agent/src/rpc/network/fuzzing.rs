//! For fuzz/: the messages of Network, as far as values of the domain.

use std::path::Path;

use guestline_proto::v1::ForwardOpen;
use prost::Message;

use super::convert;

pub(crate) fn convert(bytes: &[u8]) {
    if let Ok(Ok(target)) =
        ForwardOpen::decode(bytes).map(|it| convert::target(it, Path::new("/home/alice")))
        && let convert::Target::Unix(path) = target
    {
        assert!(!path.as_os_str().as_encoded_bytes().contains(&0));
    }
}
