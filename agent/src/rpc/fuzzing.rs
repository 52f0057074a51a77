//! Bytes as the messages of all services, up to values of the domain: for fuzz/.

/// Whatever messages the bytes can be.
pub(crate) fn convert(bytes: &[u8]) {
    super::files::fuzzing::convert(bytes);
    super::processes::fuzzing::convert(bytes);
    super::system::fuzzing::convert(bytes);
    super::network::fuzzing::convert(bytes);
}
