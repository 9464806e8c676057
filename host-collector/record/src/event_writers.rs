//! Where the recorder's events go: one stream for each pCPU, one for the stacks and one for the control groups.

use crate::perf::{EventSink, SinkError};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use vslice_core::host_event::{HostEvent, StackId};
use vslice_core::units::PcpuId;
use vslice_trace::{GroupItem, RunDir, StackFrames, StoreError, StreamWriter};

/// Writes scheduling events into a run directory. A stream is created with its first event.
#[derive(Debug)]
pub struct EventWriters {
    run: RunDir,
    events: BTreeMap<PcpuId, StreamWriter<HostEvent>>,
    /// `None` once it is finished.
    stacks: Option<StreamWriter<StackFrames>>,
    /// Created with the first one.
    groups: Option<StreamWriter<GroupItem>>,
}

impl EventWriters {
    /// Writers for a new run.
    ///
    /// # Errors
    /// When `stacks.vsr` cannot be created.
    pub fn create(run: &RunDir) -> Result<EventWriters, StoreError> {
        let stacks = Some(StreamWriter::create(&run.stacks_path())?);
        Ok(EventWriters { run: run.clone(), events: BTreeMap::new(), stacks, groups: None })
    }

    fn writer(&mut self, pcpu: PcpuId) -> Result<&mut StreamWriter<HostEvent>, StoreError> {
        Ok(match self.events.entry(pcpu) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(StreamWriter::create(&self.run.events_path(pcpu))?)
            }
        })
    }
}

impl EventSink for EventWriters {
    fn batch(&mut self, pcpu: PcpuId, events: &[HostEvent]) -> Result<(), SinkError> {
        let writer = self.writer(pcpu)?;
        for event in events {
            writer.push(event.clone())?;
        }
        Ok(())
    }

    fn stack(&mut self, id: StackId, frames: &[u64]) -> Result<(), SinkError> {
        if let Some(stacks) = &mut self.stacks {
            stacks.push(StackFrames { id, frames: frames.to_vec() })?;
        }
        Ok(())
    }

    fn group(&mut self, number: u64, path: Option<&str>) -> Result<(), SinkError> {
        let groups = match &mut self.groups {
            Some(groups) => groups,
            none => none.insert(StreamWriter::create(&self.run.groups_path())?),
        };
        groups.push(GroupItem { number, path: path.map(str::to_owned) })?;
        Ok(())
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        // Stacks first, so that no event on disk names a stack that is not there yet.
        if let Some(stacks) = &mut self.stacks {
            stacks.tick()?;
        }
        if let Some(groups) = &mut self.groups {
            groups.tick()?;
        }
        for writer in self.events.values_mut() {
            writer.tick()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        if let Some(stacks) = self.stacks.take() {
            stacks.finish()?;
        }
        if let Some(groups) = self.groups.take() {
            groups.finish()?;
        }
        while let Some((_, writer)) = self.events.pop_first() {
            writer.finish()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::host_event::HostEventKind;
    use vslice_core::units::{HostNs, Tid};
    use vslice_trace::{EventMerge, Tail, read_all};

    #[test]
    fn what_a_recorder_hands_over_is_read_back() {
        let scratch = tempfile::tempdir().unwrap();
        let run = RunDir::create(scratch.path()).unwrap();
        let exit = |time, pcpu| HostEvent {
            time: HostNs(time),
            pcpu: PcpuId(pcpu),
            kind: HostEventKind::Exit { tid: Tid(1) },
        };
        let mut writers = EventWriters::create(&run).unwrap();
        writers.stack(StackId(0), &[1, 2]).unwrap();
        writers.group(7, Some("/a.scope")).unwrap();
        writers.group(8, None).unwrap();
        writers.batch(PcpuId(1), &[exit(10, 1), exit(30, 1)]).unwrap();
        writers.batch(PcpuId(0), &[exit(20, 0)]).unwrap();
        writers.finish().unwrap();
        let merged: Vec<_> = EventMerge::open(&run).unwrap().map(Result::unwrap).collect();
        assert_eq!(merged, [exit(10, 1), exit(20, 0), exit(30, 1)]);
        let (stacks, tail) = read_all::<StackFrames>(&run.stacks_path()).unwrap();
        assert_eq!(stacks, [StackFrames { id: StackId(0), frames: vec![1, 2] }]);
        assert_eq!(tail, Tail::Finished);
        let (groups, _) = read_all::<GroupItem>(&run.groups_path()).unwrap();
        let paths: Vec<_> = groups.into_iter().map(|group| (group.number, group.path)).collect();
        assert_eq!(paths, [(7, Some("/a.scope".to_owned())), (8, None)]);
    }
}
