//! Messages as bytes, both ways, for the generated clients and servers: prost's, but that one of too many parts is refused
//! before it is decoded.
//!
//! A message is bounded in bytes, and that is no bound on memory: two bytes are an empty entry of a list, which takes some
//! three hundred once it is decoded. So what a message of 2 MiB may become is bounded by the number of its fields. The lists
//! within a field are of bytes, texts and numbers, at most 32 bytes of memory for the two that an empty one takes.

use std::marker::PhantomData;

use bytes::Buf;
use prost::{
    Message,
    encoding::{DecodeContext, decode_key, skip_field},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

use crate::MAX_PARTS;

/// What the generated code reads and writes messages with.
#[derive(Clone, Copy, Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Its half that reads.
#[derive(Clone, Copy, Debug)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // tonic has a message in one piece; of another nothing is known but that.
        let message = source.chunk();
        if message.len() != source.remaining() || has_too_many_parts(message) {
            // As tonic says it of too many bytes.
            let text = format!("a message of more than {MAX_PARTS} parts");
            return Err(Status::out_of_range(text));
        }
        let decoded = U::decode(source);
        decoded
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// Counts fields at the top, those of a list each. What cannot be read is for the decoder to say: it gets no further.
fn has_too_many_parts(mut message: &[u8]) -> bool {
    for _ in 0..MAX_PARTS {
        if message.is_empty() {
            return false;
        }
        let Ok((number, wire_type)) = decode_key(&mut message) else {
            return false;
        };
        if skip_field(wire_type, number, &mut message, DecodeContext::default()).is_err() {
            return false;
        }
    }
    !message.is_empty()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{MAX_MESSAGE_SIZE, v1};

    const MIB: usize = 1024 * 1024;

    #[test]
    fn as_many_parts_as_there_may_be_are_taken_and_no_more() {
        let entries = |count| {
            let entries = vec![v1::Entry::default(); count];
            v1::ListResponse { entries }.encode_to_vec()
        };
        assert!(!has_too_many_parts(&entries(MAX_PARTS)));
        assert!(has_too_many_parts(&entries(MAX_PARTS + 1)));
        let data = Some(v1::read_response::Message::Data(vec![0; MIB].into()));
        let data = v1::ReadResponse { message: data }.encode_to_vec();
        assert!(!has_too_many_parts(&data));
    }

    #[test]
    fn what_is_no_message_is_the_decoders_to_refuse() {
        // A field without its end, a key of too many bytes, an end of a group that has not begun.
        for broken in [&b"\x0a\x05x"[..], &[0xff; 11], b"\x0c"] {
            assert!(!has_too_many_parts(broken), "{broken:?}");
            assert!(v1::ListResponse::decode(broken).is_err(), "{broken:?}");
        }
    }

    /// Whatever a list has items of. A vector that grows takes up to twice as much for a moment.
    #[test]
    fn what_a_message_becomes_is_a_few_times_its_size() {
        let largest = [
            size_of::<v1::AgentProcess>(),
            size_of::<v1::Disk>(),
            size_of::<v1::Entry>(),
            size_of::<v1::ExtendedAttribute>(),
            size_of::<v1::Group>(),
            size_of::<v1::LogLine>(),
            size_of::<v1::Port>(),
            size_of::<v1::Process>(),
            size_of::<v1::Service>(),
            size_of::<v1::User>(),
        ];
        let largest = largest.into_iter().max().unwrap();
        assert!(largest * MAX_PARTS <= 16 * MIB, "{largest} bytes an item");
        // Arguments of a program and members of a group, two bytes each on the way.
        let within = MAX_MESSAGE_SIZE / 2 * size_of::<Bytes>();
        assert!(within <= 32 * MIB, "{within} bytes");
    }
}
