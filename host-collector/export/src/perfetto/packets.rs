//! The file of a trace: packets, one after the other, compressed some at a time.

use super::schema;
use super::wire::Message;
use std::io::Write;

/// Packets are compressed together once they are so long. A reader has room for 512 KiB
/// (perfetto: `protos/perfetto/trace/trace_packet.proto`, `compressed_packets`); one packet is far shorter than the rest.
const BATCH_BYTES: usize = 192 << 10;

/// zlib's level; the higher ones take twice the time for some percent.
const LEVEL: u8 = 6;

/// Writes packets to a file, until the first error.
#[derive(Debug)]
pub(super) struct Packets<W> {
    file: W,
    batch: Message,
    error: Option<std::io::Error>,
}

impl<W: Write> Packets<W> {
    pub(super) fn new(file: W) -> Packets<W> {
        Packets { file, batch: Message::default(), error: None }
    }

    /// One more packet.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Message)) {
        if self.error.is_some() {
            return;
        }
        self.batch.message(schema::trace::PACKET, write);
        if self.batch.as_bytes().len() >= BATCH_BYTES {
            self.write_batch();
        }
    }

    /// The file, with all packets in it.
    pub(super) fn finish(mut self) -> std::io::Result<W> {
        self.write_batch();
        if self.error.is_none() {
            self.error = self.file.flush().err();
        }
        self.error.map_or(Ok(self.file), Err)
    }

    fn write_batch(&mut self) {
        if self.error.is_some() || self.batch.is_empty() {
            return;
        }
        let compressed = miniz_oxide::deflate::compress_to_vec_zlib(self.batch.as_bytes(), LEVEL);
        self.batch.clear();
        let mut trace = Message::default();
        trace.message(schema::trace::PACKET, |packet| {
            packet.bytes(schema::packet::COMPRESSED_PACKETS, &compressed);
        });
        self.error = self.file.write_all(trace.as_bytes()).err();
    }
}
