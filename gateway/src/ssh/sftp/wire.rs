//! The words of SFTP (draft-ietf-secsh-filexfer-02): numbers and strings, big-endian, each string with its length before
//! it. What is read is a stranger's: nothing is taken on trust, and strings are slices of the packet.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The packet ends before what it should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Short;

/// A length that no packet has: the client does not speak SFTP, or not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoPacket;

/// The largest packet either way: OpenSSH's own number.
pub(super) const MAX_PACKET: usize = 256 * 1024;

/// A whole packet without its length, if there is one.
pub(super) fn next_packet(incoming: &mut BytesMut) -> Result<Option<Bytes>, NoPacket> {
    let Some(length) = incoming.first_chunk().map(|it| u32::from_be_bytes(*it)) else {
        return Ok(None);
    };
    let length = length as usize;
    if length == 0 || length > MAX_PACKET {
        return Err(NoPacket);
    }
    if incoming.len() < 4 + length {
        return Ok(None);
    }
    incoming.advance(4);
    Ok(Some(incoming.split_to(length).freeze()))
}

/// Takes words from a packet.
#[derive(Debug)]
pub(super) struct Words(Bytes);

impl Words {
    pub(super) fn new(packet: Bytes) -> Self {
        Self(packet)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Short> {
        self.0.try_get_u8().map_err(|_| Short)
    }

    pub(super) fn number(&mut self) -> Result<u32, Short> {
        self.0.try_get_u32().map_err(|_| Short)
    }

    pub(super) fn long(&mut self) -> Result<u64, Short> {
        self.0.try_get_u64().map_err(|_| Short)
    }

    pub(super) fn string(&mut self) -> Result<Bytes, Short> {
        let length = self.number()? as usize;
        if length > self.0.len() {
            return Err(Short);
        }
        Ok(self.0.split_to(length))
    }
}

/// A packet to be sent: its length is filled in at the end.
#[derive(Debug)]
pub(super) struct Packet(BytesMut);

impl Packet {
    /// `room`: bytes that will likely be needed.
    pub(super) fn new(kind: u8, room: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(room + 16);
        bytes.put_u32(0);
        bytes.put_u8(kind);
        Self(bytes)
    }

    pub(super) fn number(mut self, number: u32) -> Self {
        self.0.put_u32(number);
        self
    }

    pub(super) fn long(mut self, number: u64) -> Self {
        self.0.put_u64(number);
        self
    }

    pub(super) fn string(mut self, text: &[u8]) -> Self {
        self.0.put_u32(text.len() as u32);
        self.0.put_slice(text);
        self
    }

    pub(super) fn finish(mut self) -> Bytes {
        let length = (self.0.len() - 4) as u32;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_taken_whole_and_too_large_ones_not_at_all() {
        let mut incoming = BytesMut::from(&[0, 0, 0, 2, 7][..]);
        assert_eq!(next_packet(&mut incoming), Ok(None));
        incoming.extend_from_slice(&[8, 0, 0]);
        let packet = Bytes::from_static(&[7, 8]);
        assert_eq!(next_packet(&mut incoming), Ok(Some(packet)));
        assert_eq!(next_packet(&mut incoming), Ok(None));
        for length in [0, MAX_PACKET as u32 + 1, u32::MAX] {
            let mut incoming = BytesMut::from(&length.to_be_bytes()[..]);
            assert_eq!(next_packet(&mut incoming), Err(NoPacket), "{length}");
        }
    }

    #[test]
    fn words_come_back_and_a_short_packet_is_noticed_everywhere() {
        let packet = Packet::new(7, 0).number(1).long(2).string(b"abc").finish();
        assert_eq!(packet.len(), 4 + 1 + 4 + 8 + 4 + 3);
        assert_eq!(packet[..4], 20_u32.to_be_bytes());
        let read = |packet: Bytes| {
            let mut words = Words::new(packet);
            let read = (
                words.byte()?,
                words.number()?,
                words.long()?,
                words.string()?,
            );
            Ok::<_, Short>(read)
        };
        let whole = packet.slice(4..);
        assert_eq!(
            read(whole.clone()),
            Ok((7, 1, 2, Bytes::from_static(b"abc")))
        );
        for length in 0..whole.len() {
            assert_eq!(read(whole.slice(..length)), Err(Short), "{length}");
        }
    }
}
