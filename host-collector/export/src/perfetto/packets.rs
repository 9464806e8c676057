//! The file of a trace: packets, compressed some at a time. In each batch those of a sequence are together, since they
//! resemble each other.

use super::schema;
use super::wire::Message;
use std::collections::BTreeMap;
use std::io::Write;

/// Packets are compressed together once they are so long. A reader has room for 512 KiB
/// (perfetto: `protos/perfetto/trace/trace_packet.proto`, `compressed_packets`); one packet is far shorter than the rest.
const BATCH_BYTES: usize = 384 << 10;

/// zlib's level; the higher ones take twice the time for some percent.
const LEVEL: u8 = 6;

/// Where the packets of a sequence are in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// What others rest on.
    First,
    /// Where arrows begin: of two ends at one time a reader has to see the beginning first.
    Causes(u64),
    /// The other ones, by their number.
    Rest(u64),
}

/// Writes packets to a file, until the first error.
#[derive(Debug)]
pub(super) struct Packets<W> {
    file: W,
    /// The packets of each sequence, in the order in which they are written.
    batch: BTreeMap<Order, Message>,
    batch_bytes: usize,
    error: Option<std::io::Error>,
}

impl<W: Write> Packets<W> {
    pub(super) fn new(file: W) -> Packets<W> {
        Packets { file, batch: BTreeMap::new(), batch_bytes: 0, error: None }
    }

    /// One more packet, after those that were pushed before it and have the same order or a lower one.
    pub(super) fn push(&mut self, order: Order, write: impl FnOnce(&mut Message)) {
        if self.error.is_some() {
            return;
        }
        let packets = self.batch.entry(order).or_default();
        let before = packets.as_bytes().len();
        packets.message(schema::trace::PACKET, write);
        self.batch_bytes += packets.as_bytes().len() - before;
        if self.batch_bytes >= BATCH_BYTES {
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
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        if self.error.is_some() || batch.is_empty() {
            return;
        }
        let packets: Vec<&[u8]> = batch.values().map(Message::as_bytes).collect();
        let compressed = miniz_oxide::deflate::compress_to_vec_zlib(&packets.concat(), LEVEL);
        let mut trace = Message::default();
        trace.message(schema::trace::PACKET, |packet| {
            packet.bytes(schema::packet::COMPRESSED_PACKETS, &compressed);
        });
        self.error = self.file.write_all(trace.as_bytes()).err();
    }
}
