//! For fuzz/: the messages of Files, as far as values of the domain.

use std::path::Path;

use guestline_proto::v1::{
    ChecksumRequest, ListRequest, ReadRequest, RenameRequest, SetAttributesRequest,
    SetExtendedAttributesRequest, WriteStart,
};
use prost::Message;

use super::convert::{self, Home};

pub(crate) fn convert(bytes: &[u8]) {
    let home = Home("/home/alice".into());
    let whole = |path: &Path| {
        let path = path.as_os_str().as_encoded_bytes();
        assert!(!path.is_empty() && !path.contains(&0));
    };
    if let Ok(Ok((path, _))) = ReadRequest::decode(bytes).map(|it| home.read(it)) {
        whole(&path);
    }
    if let Ok(Ok((path, ..))) = ChecksumRequest::decode(bytes).map(|it| home.checksum(it)) {
        whole(&path);
    }
    if let Ok(Ok(listing)) = ListRequest::decode(bytes).map(|it| home.listing(it)) {
        whole(&listing.path);
        assert!(listing.depth <= 1024);
    }
    let _ = WriteStart::decode(bytes).map(|it| home.write(it));
    let _ = RenameRequest::decode(bytes).map(|it| convert::rename_mode(it.mode));
    let _ = SetAttributesRequest::decode(bytes).map(|it| convert::changes(&it));
    if let Ok(request) = SetExtendedAttributesRequest::decode(bytes) {
        let _ = convert::attributes_to_set(&request.set);
        let _ = convert::attribute_names("remove", &request.remove);
    }
}
