//! All pCPUs' events as one sequence in order of time.

use super::ahead::{BlocksAhead, Decoders};
use super::{RunDir, StoreError, StreamReader, Tail};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::path::PathBuf;
use std::vec::IntoIter;
use vslice_core::host_event::HostEvent;
use vslice_core::units::{HostNs, PcpuId};

/// With so many events left of a block, the next one is decoded: that takes less than it takes to look at these.
const ITEMS_BEFORE_NEXT: usize = 1024;

/// Merges the `events-*.vsr` of a run, block by block: one block of each pCPU is in memory, and towards its end the next
/// one.
///
/// Events of equal time come in order of their pCPUs, and of one pCPU in the order in which they
/// were recorded. A [`Lost`](vslice_core::host_event::HostEventKind::Lost) comes where the loss began. After the
/// first error nothing more comes.
#[derive(Debug)]
pub struct EventMerge {
    streams: Vec<Stream>,
    decoders: Decoders<HostEvent>,
    /// The time of the next event of each stream that has one, with the stream's place.
    next: BinaryHeap<Reverse<(HostNs, usize)>>,
    ended_count: usize,
}

#[derive(Debug)]
struct Stream {
    pcpu: PcpuId,
    path: PathBuf,
    blocks: BlocksAhead<HostEvent>,
    block: IntoIter<HostEvent>,
    head: Option<HostEvent>,
}

impl EventMerge {
    /// Opens every pCPU's stream of the run; what it reads is decoded where it is asked for.
    ///
    /// # Errors
    /// When one of them cannot be read or is not such a stream.
    pub fn open(run: &RunDir) -> Result<EventMerge, StoreError> {
        EventMerge::open_on(1, run)
    }

    /// As [`EventMerge::open`]; blocks are decoded ahead, by threads for all of so many pCPUs but the one that asks.
    ///
    /// # Errors
    /// As that.
    pub fn open_on(pcpus_count: usize, run: &RunDir) -> Result<EventMerge, StoreError> {
        let decoders = Decoders::beside(pcpus_count.saturating_sub(1));
        let (streams, next) = (Vec::new(), BinaryHeap::new());
        let mut merge = EventMerge { streams, decoders, next, ended_count: 0 };
        for pcpu in run.event_pcpus()? {
            let path = run.events_path(pcpu);
            let blocks = BlocksAhead::new(StreamReader::open(&path)?);
            let block = Vec::new().into_iter();
            let mut stream = Stream { pcpu, path, blocks, block, head: None };
            stream.advance(&merge.decoders)?;
            match &stream.head {
                Some(head) => merge.next.push(Reverse((head.time, merge.streams.len()))),
                None => merge.ended_count += 1,
            }
            merge.streams.push(stream);
        }
        Ok(merge)
    }

    /// How each pCPU's stream ends, as far as that has been reached. Where one is
    /// [`Tail::Torn`], nothing is known of that pCPU after its last event.
    #[must_use]
    pub fn tails(&self) -> Vec<(PcpuId, Tail)> {
        let tail = |stream: &Stream| stream.blocks.tail().map(|tail| (stream.pcpu, tail));
        self.streams.iter().filter_map(tail).collect()
    }

    /// How many streams have come to their ends: [`EventMerge::tails`] has so many, and is the same as
    /// long as this is.
    #[must_use]
    pub fn ended_count(&self) -> usize {
        self.ended_count
    }
}

impl Stream {
    /// Takes the head and puts the event after it in its place.
    fn advance(&mut self, decoders: &Decoders<HostEvent>) -> Result<Option<HostEvent>, StoreError> {
        if self.block.len() == 0
            && let Some(items) = self.blocks.next_block()?
        {
            self.block = items.into_iter();
            if self.block.len() <= ITEMS_BEFORE_NEXT {
                self.blocks.prepare(decoders);
            }
        } else if self.block.len() == ITEMS_BEFORE_NEXT {
            self.blocks.prepare(decoders);
        }
        let event = std::mem::replace(&mut self.head, self.block.next());
        if let (Some(before), Some(after)) = (&event, &self.head)
            && after.time < before.time
        {
            return Err(StoreError::Disorder {
                path: self.path.clone(),
                before_ns: before.time.0,
                after_ns: after.time.0,
            });
        }
        Ok(event)
    }
}

impl Iterator for EventMerge {
    type Item = Result<HostEvent, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut first = self.next.peek_mut()?;
        let Reverse((_, place)) = *first;
        let stream = &mut self.streams[place];
        match stream.advance(&self.decoders) {
            Ok(event) => {
                match &stream.head {
                    // Mostly it stays the first, or becomes the second: cheaper than to take it out and in again.
                    Some(head) => *first = Reverse((head.time, place)),
                    None => {
                        PeekMut::pop(first);
                        // It is not asked again.
                        self.ended_count += 1;
                    }
                }
                event.map(Ok)
            }
            Err(error) => {
                drop(first);
                self.next.clear();
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BLOCK_ITEMS_MAX, StreamWriter};
    use proptest::prelude::*;
    use vslice_core::host_event::HostEventKind;
    use vslice_core::units::Tid;

    fn event(time: u64, pcpu: u32, tid: u32) -> HostEvent {
        HostEvent {
            time: HostNs(time),
            pcpu: PcpuId(pcpu),
            kind: HostEventKind::Exit { tid: Tid(tid) },
        }
    }

    fn write(run: &RunDir, pcpu: u32, events: impl IntoIterator<Item = HostEvent>) {
        let mut writer = StreamWriter::create(&run.events_path(PcpuId(pcpu))).unwrap();
        events.into_iter().for_each(|event| writer.push(event).unwrap());
        writer.finish().unwrap();
    }

    #[test]
    fn blocks_are_read_on_and_ends_are_reported() {
        let scratch = tempfile::tempdir().unwrap();
        let run = RunDir::create(scratch.path()).unwrap();
        let count = 2 * BLOCK_ITEMS_MAX as u64 + 10;
        write(&run, 0, (0..count).map(|time| event(time * 2, 0, 1)));
        write(&run, 7, (0..count).map(|time| event(time * 2 + 1, 7, 2)));
        let mut writer = StreamWriter::create(&run.events_path(PcpuId(9))).unwrap();
        writer.push(event(5, 9, 3)).unwrap();
        drop(writer);
        let mut merge = EventMerge::open(&run).unwrap();
        let mut times = Vec::new();
        let mut looks = 0;
        let mut ended_before = usize::MAX;
        while let Some(event) = merge.next() {
            times.push(event.unwrap().time.0);
            looks += usize::from(merge.ended_count() != ended_before);
            ended_before = merge.ended_count();
            assert_eq!(merge.tails().len(), ended_before);
        }
        assert_eq!(looks, 4, "one at first, and one for each end, however many events");
        assert_eq!(times.len() as u64, 2 * count + 1);
        assert!(times.is_sorted());
        let tails = merge.tails();
        let torn = Tail::Torn { bytes: 0 };
        let expected = [(0, Tail::Finished), (7, Tail::Finished), (9, torn)];
        assert_eq!(tails, expected.map(|(pcpu, tail)| (PcpuId(pcpu), tail)));
    }

    #[test]
    fn time_that_goes_back_between_blocks_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        let run = RunDir::create(scratch.path()).unwrap();
        let mut writer = StreamWriter::create(&run.events_path(PcpuId(0))).unwrap();
        writer.push(event(9, 0, 1)).unwrap();
        writer.flush().unwrap();
        writer.push(event(8, 0, 1)).unwrap();
        writer.finish().unwrap();
        let read: Vec<_> = EventMerge::open(&run).unwrap().collect();
        assert_eq!(read.len(), 1);
        assert!(matches!(read[0], Err(StoreError::Disorder { before_ns: 9, after_ns: 8, .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn nothing_is_lost_and_all_is_in_order(
            times in prop::collection::vec(prop::collection::vec(0..50u64, 0..30), 1..5),
        ) {
            let scratch = tempfile::tempdir().unwrap();
            let run = RunDir::create(scratch.path()).unwrap();
            let mut expected = Vec::new();
            for (pcpu, times) in (0u32..).zip(&times) {
                let numbered = (0u32..).zip(times);
                let events: Vec<_> = numbered.map(|(tid, time)| event(*time, pcpu, tid)).collect();
                write(&run, pcpu, events.clone());
                expected.extend(events);
            }
            // A stable sort of the pCPUs in a row is the very order that the merge promises.
            expected.sort_by_key(|event| event.time);
            let merged: Vec<_> = EventMerge::open(&run).unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(merged, expected);
        }
    }
}
