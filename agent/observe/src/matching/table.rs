//! What is open: what was asked for and has not ended.

use std::collections::BTreeMap;
use vslice_wire::{BlockOperation, GuestTicks, ObservedFlags};

/// A bio, a part of one, or a request, with what is known of it so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) device: u16,
    pub(super) operation: BlockOperation,
    pub(super) flags: ObservedFlags,
    /// The first of its sectors, done or not; of a flush, which has none, the one that it ends at.
    pub(super) origin: u64,
    /// The first of its sectors that is not done.
    pub(super) start: u64,
    /// The sector after its last.
    pub(super) end: u64,
    pub(super) queued: GuestTicks,
    pub(super) vcpu_queued: u16,
    pub(super) task: u32,
    /// The kernel's number of the thread that asked.
    pub(super) thread: u32,
    pub(super) issued: GuestTicks,
    pub(super) vcpu_issued: u16,
    pub(super) result: i32,
    pub(super) nature: Nature,
    /// How many requests its disk had completed when it was queued.
    pub(super) born: u64,
    /// How many flushes of its disk's queues had completed when it was queued.
    pub(super) flushed: u64,
    /// Its place in the order in which all came.
    pub(super) id: u64,
}

/// What has to be heeded of what is open, beyond its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// Nothing.
    Plain,
    /// It came by a remapping, so that its queueing may still follow.
    Remapped,
    /// Flushes go before or come after its data: its last completion has no sectors.
    Sequenced,
    /// Not all of it was seen, or it may be another: its completion is awaited, and then it is lost.
    Ghost,
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It was asked for.
    Waiting,
    /// The driver has it.
    InFlight,
    /// Its data are written, and a flush may have to follow.
    Finishing,
    /// It is a flush that was asked for.
    Flush,
}

/// Device, first open sector, and the order in which they came.
type Key = (u16, u64, u64);

/// Where an [`Open`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    stage: Stage,
    index: usize,
}

/// All that is open, by sector and by age.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Open>,
    free: Vec<usize>,
    stages: [BTreeMap<Key, usize>; 4],
    ages: BTreeMap<(GuestTicks, u64), Place>,
    next_id: u64,
}

impl Place {
    pub(super) fn stage(self) -> Stage {
        self.stage
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.ages.len()
    }

    pub(super) fn get(&self, place: Place) -> &Open {
        &self.slots[place.index]
    }

    /// Adds `open` as the youngest, whatever its id was.
    pub(super) fn add(&mut self, stage: Stage, open: Open) {
        let id = self.next_id;
        self.next_id += 1;
        self.put_back(stage, Open { id, ..open });
    }

    /// Adds `open` with the id that it has: it was here before, and is removed.
    pub(super) fn put_back(&mut self, stage: Stage, open: Open) {
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index] = open;
                index
            }
            None => {
                self.slots.push(open);
                self.slots.len() - 1
            }
        };
        self.stages[stage as usize].insert(key(&open), index);
        self.ages.insert((open.queued, open.id), Place { stage, index });
    }

    pub(super) fn remove(&mut self, place: Place) -> Open {
        let open = self.slots[place.index];
        self.stages[place.stage as usize].remove(&key(&open));
        self.ages.remove(&(open.queued, open.id));
        self.free.push(place.index);
        open
    }

    /// Adds these flags to those of something open.
    pub(super) fn mark(&mut self, place: Place, flags: ObservedFlags) {
        let open = &mut self.slots[place.index];
        open.flags = open.flags.with(flags);
    }

    /// Makes a ghost of something open.
    pub(super) fn give_up(&mut self, place: Place) {
        self.slots[place.index].nature = Nature::Ghost;
    }

    /// What was queued first.
    pub(super) fn oldest(&self) -> Option<&Open> {
        self.ages.first_key_value().map(|(_, place)| self.get(*place))
    }

    /// All that is open, what was queued first coming first, and how far it is.
    pub(super) fn by_age(&self) -> impl Iterator<Item = (Stage, &Open)> {
        self.ages.values().map(|place| (place.stage, self.get(*place)))
    }

    pub(super) fn oldest_place(&self) -> Option<Place> {
        self.ages.first_key_value().map(|(_, place)| *place)
    }

    /// What is at `stage` and begins at `sector`, in the order in which it came.
    pub(super) fn beginning_at(
        &self,
        stage: Stage,
        device: u16,
        sector: u64,
    ) -> impl Iterator<Item = (Place, &Open)> {
        self.range(stage, (device, sector, 0), (device, sector, u64::MAX))
    }

    /// The first that came of what is at `stage`, begins at `sector`, and is as wanted.
    pub(super) fn first_at(
        &self,
        stage: Stage,
        device: u16,
        sector: u64,
        is_wanted: impl Fn(&Open) -> bool,
    ) -> Option<Place> {
        let mut found = self.beginning_at(stage, device, sector);
        found.find(|(_, open)| is_wanted(open)).map(|(place, _)| place)
    }

    /// The first flush that was asked for.
    pub(super) fn oldest_flush(&self, device: u16) -> Option<Place> {
        self.of_device(Stage::Flush, device).next().map(|(place, _)| place)
    }

    /// The flushes that end at this sector, the first that was asked for first.
    pub(super) fn flushes_at(
        &self,
        device: u16,
        sector: u64,
    ) -> impl Iterator<Item = (Place, &Open)> {
        self.of_device(Stage::Flush, device).filter(move |(_, open)| open.origin == sector)
    }

    /// What is at `stage` and begins before `sector`, the last one first.
    pub(super) fn beginning_before(
        &self,
        stage: Stage,
        device: u16,
        sector: u64,
    ) -> impl Iterator<Item = (Place, &Open)> {
        let keys = self.stages[stage as usize].range((device, 0, 0)..(device, sector, 0));
        keys.rev().map(move |(_, index)| self.entry(stage, *index))
    }

    /// What is at `stage` and begins after `sector` and before `end`.
    pub(super) fn beginning_within(
        &self,
        stage: Stage,
        device: u16,
        sector: u64,
        end: u64,
    ) -> impl Iterator<Item = (Place, &Open)> {
        let keys = self.stages[stage as usize].range((device, sector, u64::MAX)..);
        keys.take_while(move |(key, _)| key.0 == device && key.1 < end)
            .map(move |(_, index)| self.entry(stage, *index))
    }

    /// What of a disk is at `stage`, by its first sector.
    pub(super) fn of_device(
        &self,
        stage: Stage,
        device: u16,
    ) -> impl Iterator<Item = (Place, &Open)> {
        self.range(stage, (device, 0, 0), (device, u64::MAX, u64::MAX))
    }

    fn range(&self, stage: Stage, first: Key, last: Key) -> impl Iterator<Item = (Place, &Open)> {
        let keys = self.stages[stage as usize].range(first..=last);
        keys.map(move |(_, index)| self.entry(stage, *index))
    }

    fn entry(&self, stage: Stage, index: usize) -> (Place, &Open) {
        (Place { stage, index }, &self.slots[index])
    }
}

fn key(open: &Open) -> Key {
    (open.device, open.start, open.id)
}
