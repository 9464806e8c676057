//! Blocks of several streams, decoded ahead: while the items of one block are looked at, the next one of its stream is read
//! and decoded by another thread. What comes out does not depend on how many threads there are.

use super::{Columnar, StoreError, StreamReader, Tail};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Threads that decode at most: an analysis takes no more than these bring.
const THREADS_MAX: usize = 3;

type NextBlock<T> = Result<Option<Vec<T>>, StoreError>;

/// A reader that was sent away for its next block, and where it comes back.
struct Job<T: Columnar> {
    reader: StreamReader<T>,
    back: SyncSender<(StreamReader<T>, NextBlock<T>)>,
}

/// Threads that decode blocks; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Decoders<T: Columnar> {
    /// `None` where there is no pCPU for them, or no thread can be had: then blocks are decoded when they are asked for.
    jobs: Option<Sender<Job<T>>>,
}

impl<T: Columnar + Send + 'static> Decoders<T> {
    /// For so many pCPUs beside the one that asks.
    pub(super) fn beside(pcpus_count: usize) -> Decoders<T> {
        Decoders::with_threads(pcpus_count.min(THREADS_MAX))
    }

    fn with_threads(count: usize) -> Decoders<T> {
        let (jobs, taken) = channel();
        let taken = Arc::new(Mutex::new(taken));
        let started = (0..count).filter(|_| {
            let taken = Arc::clone(&taken);
            let decoder = thread::Builder::new().name("decoder".to_owned());
            decoder.spawn(move || decode_all(&taken)).is_ok()
        });
        Decoders { jobs: (started.count() > 0).then_some(jobs) }
    }
}

fn decode_all<T: Columnar>(jobs: &Mutex<Receiver<Job<T>>>) {
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(Job { mut reader, back }) = next() {
        let block = reader.next_block();
        // Nobody waits for it once an analysis has failed.
        let _is_wanted = back.send((reader, block));
    }
}

/// One stream, the next block of which may be on its way.
#[derive(Debug)]
pub(super) struct BlocksAhead<T: Columnar> {
    reader: Reader<T>,
    has_more: bool,
}

#[derive(Debug)]
enum Reader<T: Columnar> {
    Here(Box<StreamReader<T>>),
    Away(Receiver<(StreamReader<T>, NextBlock<T>)>),
    /// The thread that had it is gone, which none does unless it panics.
    Lost,
}

impl<T: Columnar> BlocksAhead<T> {
    /// Of this stream; nothing of it is read before it is asked for.
    pub(super) fn new(reader: StreamReader<T>) -> BlocksAhead<T> {
        BlocksAhead { reader: Reader::Here(Box::new(reader)), has_more: true }
    }

    /// Has the next block decoded meanwhile: it will be asked for soon. A host has many pCPUs, and a block of each is enough
    /// to keep.
    pub(super) fn prepare(&mut self, decoders: &Decoders<T>) {
        let Some(jobs) = decoders.jobs.as_ref().filter(|_| self.has_more) else { return };
        self.reader = match std::mem::replace(&mut self.reader, Reader::Lost) {
            Reader::Here(reader) => send_away(*reader, jobs),
            other => other,
        };
    }

    /// As [`StreamReader::next_block`].
    ///
    /// # Errors
    /// As that.
    pub(super) fn next_block(&mut self) -> NextBlock<T> {
        let (reader, block) = match std::mem::replace(&mut self.reader, Reader::Lost) {
            Reader::Here(mut reader) => {
                let block = reader.next_block();
                (reader, block)
            }
            Reader::Away(back) => match back.recv() {
                Ok((reader, block)) => (Box::new(reader), block),
                Err(_) => return Err(StoreError::DecoderLost),
            },
            Reader::Lost => return Err(StoreError::DecoderLost),
        };
        self.has_more = matches!(block, Ok(Some(_)));
        self.reader = Reader::Here(reader);
        block
    }

    /// As [`StreamReader::tail`].
    pub(super) fn tail(&self) -> Option<Tail> {
        match &self.reader {
            Reader::Here(reader) => reader.tail(),
            Reader::Away(_) | Reader::Lost => None,
        }
    }
}

fn send_away<T: Columnar>(reader: StreamReader<T>, jobs: &Sender<Job<T>>) -> Reader<T> {
    let (back, comes) = sync_channel(1);
    match jobs.send(Job { reader, back }) {
        Ok(()) => Reader::Away(comes),
        Err(unsent) => Reader::Here(Box::new(unsent.0.reader)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BLOCK_ITEMS_MAX, StreamWriter};
    use std::path::Path;
    use vslice_core::host_event::{HostEvent, HostEventKind};
    use vslice_core::units::{HostNs, PcpuId, Tid};

    fn event(time: u64) -> HostEvent {
        HostEvent { time: HostNs(time), pcpu: PcpuId(0), kind: HostEventKind::Exit { tid: Tid(1) } }
    }

    /// Two whole streams of several blocks, and one that is cut off within its second block.
    fn write(directory: &Path) -> Vec<std::path::PathBuf> {
        let count = 2 * BLOCK_ITEMS_MAX as u64 + 10;
        (0..3)
            .map(|stream| {
                let path = directory.join(format!("events-{stream}.vsr"));
                let mut writer = StreamWriter::create(&path).unwrap();
                (0..count).for_each(|time| writer.push(event(3 * time + stream)).unwrap());
                writer.finish().unwrap();
                if stream == 2 {
                    let bytes = std::fs::read(&path).unwrap();
                    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
                }
                path
            })
            .collect()
    }

    /// All items of the streams, a block of each in turn, and how they end.
    fn read(
        paths: &[std::path::PathBuf],
        decoders: &Decoders<HostEvent>,
    ) -> Vec<(Vec<HostEvent>, Option<Tail>)> {
        let open = |path: &std::path::PathBuf| BlocksAhead::new(StreamReader::open(path).unwrap());
        let mut streams: Vec<_> =
            paths.iter().map(|path| (open(path), Vec::new(), false)).collect();
        while streams.iter().any(|(_, _, has_ended)| !has_ended) {
            for (blocks, items, has_ended) in
                streams.iter_mut().filter(|(_, _, has_ended)| !has_ended)
            {
                assert_eq!(blocks.tail(), None, "before it is asked for");
                match blocks.next_block().unwrap() {
                    Some(block) => {
                        blocks.prepare(decoders);
                        items.extend(block);
                    }
                    None => *has_ended = true,
                }
            }
        }
        streams.into_iter().map(|(blocks, items, _)| (items, blocks.tail())).collect()
    }

    #[test]
    fn what_comes_out_does_not_depend_on_the_number_of_threads() {
        let scratch = tempfile::tempdir().unwrap();
        let paths = write(scratch.path());
        let alone = read(&paths, &Decoders::with_threads(0));
        assert_eq!(alone[0].0.len(), 2 * BLOCK_ITEMS_MAX + 10);
        assert_eq!(alone[0].1, Some(Tail::Finished));
        assert!(matches!(alone[2].1, Some(Tail::Torn { bytes: 1.. })), "{:?}", alone[2].1);
        for count in 1..=THREADS_MAX {
            assert!(read(&paths, &Decoders::with_threads(count)) == alone, "{count} threads");
        }
    }
}
