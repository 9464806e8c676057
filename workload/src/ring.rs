//! The way of a record from the reader to whoever sends it on.
//!
//! One producer, one consumer, a fixed number of places. The producer neither waits nor allocates:
//! a record that finds no place is counted into the interval of a [`DroppedRecords`], which takes
//! the first place that gets free, ahead of every later record. An interval that is still open when
//! the producer ends is left in a place of its own, so no loss is ever silent.

use std::sync::{Arc, OnceLock};

/// One request, as the reader saw it. Times are readings of the reader's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Counts from 0 in order of submission.
    pub index: u64,
    /// Just before the request was handed to the kernel.
    pub submitted: u64,
    /// Just after its completion was seen.
    pub completed: u64,
    /// The vCPU that the submitting thread was on; [`crate::pin::VCPU_UNKNOWN`] is possible.
    pub vcpu_submitted: u16,
    /// The vCPU that the thread was on when it saw the completion.
    pub vcpu_completed: u16,
    /// Bytes read (0 or more), or the negated errno.
    pub result: i32,
}

/// Requests that were made but found the ring full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedRecords {
    /// How many, at least 1.
    pub count: u64,
    /// When the first of them was submitted.
    pub first: u64,
    /// When the last of them completed.
    pub last: u64,
}

impl DroppedRecords {
    /// Many requests in flight complete in any order, so the interval grows at both ends.
    fn add(&mut self, submitted: u64, completed: u64) {
        self.count += 1;
        self.first = self.first.min(submitted);
        self.last = self.last.max(completed);
    }
}

/// What comes out of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// One request.
    Request(Record),
    /// Requests whose records were lost between the one before and the one after this.
    Dropped(DroppedRecords),
}

/// What lies in the ring: a [`Recorded`] as four numbers, which stay in registers until they are written
/// to their place. An enum is put together on the stack and copied from there, and to read again what has
/// just been written in smaller pieces takes some nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place([u64; 4]);

/// Marks a loss, in its count; no reader comes to so many requests.
const LOSS: u64 = 1 << 63;

impl Place {
    #[inline]
    fn of_request(record: &Record) -> Place {
        let result = u64::from(record.result.cast_unsigned());
        let vcpus = u64::from(record.vcpu_submitted) << 48 | u64::from(record.vcpu_completed) << 32;
        Place([record.index, record.submitted, record.completed, vcpus | result])
    }

    fn of_loss(dropped: DroppedRecords) -> Place {
        Place([dropped.count | LOSS, dropped.first, dropped.last, 0])
    }

    fn recorded(self) -> Recorded {
        let Place([number, first, last, rest]) = self;
        if number & LOSS != 0 {
            return Recorded::Dropped(DroppedRecords { count: number & !LOSS, first, last });
        }
        let [result_0, result_1, result_2, result_3, vcpu_0, vcpu_1, vcpu_2, vcpu_3] =
            rest.to_le_bytes();
        Recorded::Request(Record {
            index: number,
            submitted: first,
            completed: last,
            vcpu_submitted: u16::from_le_bytes([vcpu_2, vcpu_3]),
            vcpu_completed: u16::from_le_bytes([vcpu_0, vcpu_1]),
            result: i32::from_le_bytes([result_0, result_1, result_2, result_3]),
        })
    }
}

/// Filled by the producer when it ends: with the loss that found no place in the ring, if any.
type Closing = Arc<OnceLock<Option<DroppedRecords>>>;

/// The reader's end of the ring.
#[derive(Debug)]
pub struct Producer {
    ring: rtrb::Producer<Place>,
    /// The loss that has not found a place yet.
    pending: Option<DroppedRecords>,
    dropped_count: u64,
    closing: Closing,
}

/// The streamer's end of the ring.
#[derive(Debug)]
pub struct Consumer {
    ring: rtrb::Consumer<Place>,
    closing: Closing,
    closing_taken: bool,
}

/// Makes a ring with room for `capacity` records of 32 bytes each, at least 1.
#[must_use]
pub fn recording_ring(capacity: usize) -> (Producer, Consumer) {
    let (mut ring_producer, mut ring_consumer) = rtrb::RingBuffer::new(capacity.max(1));
    touch_all_places(&mut ring_producer, &mut ring_consumer);
    let closing = Closing::default();
    let producer = Producer {
        ring: ring_producer,
        pending: None,
        dropped_count: 0,
        closing: Arc::clone(&closing),
    };
    (producer, Consumer { ring: ring_consumer, closing, closing_taken: false })
}

/// Writes to every place once, so that the kernel backs the memory with pages now and not, fault by
/// fault, while requests are measured.
fn touch_all_places(producer: &mut rtrb::Producer<Place>, consumer: &mut rtrb::Consumer<Place>) {
    let filler = Place([0; 4]);
    while producer.push(filler).is_ok() {}
    while consumer.pop().is_ok() {}
}

impl Producer {
    /// Hands on one record, or counts it as dropped if there is no room. Never waits, never
    /// allocates.
    ///
    /// Inlined, so that the record is in no memory before.
    #[inline]
    pub fn push(&mut self, record: Record) {
        let place = Place::of_request(&record);
        if self.pending.is_some() || self.ring.push(place).is_err() {
            let Place([index, submitted, completed, rest]) = place;
            self.push_beside_loss(index, submitted, completed, rest);
        }
    }

    /// Hands on the loss that there is, then the record of these numbers, as far as there is room.
    #[cold]
    fn push_beside_loss(&mut self, index: u64, submitted: u64, completed: u64, rest: u64) {
        if let Some(dropped) = self.pending
            && self.ring.push(Place::of_loss(dropped)).is_ok()
        {
            self.pending = None;
        }
        // Only if the loss has gone ahead may a later record follow: order is kept.
        if self.pending.is_none()
            && self.ring.push(Place([index, submitted, completed, rest])).is_ok()
        {
            return;
        }
        self.dropped_count += 1;
        match &mut self.pending {
            Some(dropped) => dropped.add(submitted, completed),
            None => {
                let dropped = DroppedRecords { count: 1, first: submitted, last: completed };
                self.pending = Some(dropped);
            }
        }
    }

    /// How many records found no room so far.
    #[must_use]
    pub fn dropped_count(&self) -> u64 {
        self.dropped_count
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // ATOMICS: setting the cell is a release. Whoever sees it set by the acquire in `get` also
        // sees every record that was pushed before.
        self.closing.set(self.pending).expect("only the producer sets the cell, and drops once");
    }
}

impl Consumer {
    /// The next record or loss, in the order in which they happened; `None` if there is none now.
    pub fn pop(&mut self) -> Option<Recorded> {
        if let Ok(place) = self.ring.pop() {
            return Some(place.recorded());
        }
        let closing = *self.closing.get()?;
        // The producer may have pushed its last record after our look at the ring and before it
        // ended, so look again now that it can push no more.
        if let Ok(place) = self.ring.pop() {
            return Some(place.recorded());
        }
        let taken_before = std::mem::replace(&mut self.closing_taken, true);
        closing.filter(|_| !taken_before).map(Recorded::Dropped)
    }

    /// Whether the producer has ended and [`Consumer::pop`] has returned everything.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        // The cell first: an empty ring means nothing while the producer can still push.
        self.closing.get().is_some_and(|closing| {
            self.ring.is_empty() && (closing.is_none() || self.closing_taken)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn record(index: u64) -> Record {
        Record {
            index,
            submitted: 10 * index,
            completed: 10 * index + 25,
            vcpu_submitted: 1,
            vcpu_completed: 1,
            result: 4096,
        }
    }

    #[test]
    fn a_record_takes_32_bytes() {
        assert_eq!(size_of::<Place>(), 32);
    }

    #[test]
    fn a_loss_takes_its_place_in_the_order() {
        let (mut producer, mut consumer) = recording_ring(2);
        (0..5).for_each(|index| producer.push(record(index)));
        assert_eq!(producer.dropped_count(), 3);
        assert_eq!(consumer.pop(), Some(Recorded::Request(record(0))));
        // One place is free: the loss takes it, and the record behind it is lost in turn.
        producer.push(record(5));
        assert_eq!(consumer.pop(), Some(Recorded::Request(record(1))));
        let loss = DroppedRecords { count: 3, first: 20, last: 65 };
        assert_eq!(consumer.pop(), Some(Recorded::Dropped(loss)));
        producer.push(record(6));
        let loss = DroppedRecords { count: 1, first: 50, last: 75 };
        assert_eq!(consumer.pop(), Some(Recorded::Dropped(loss)));
        assert_eq!(consumer.pop(), Some(Recorded::Request(record(6))));
        assert_eq!(consumer.pop(), None);
        assert!(!consumer.is_finished());
        drop(producer);
        assert!(consumer.is_finished());
    }

    #[test]
    fn a_loss_at_the_very_end_is_handed_on() {
        let (mut producer, mut consumer) = recording_ring(1);
        (0..3).for_each(|index| producer.push(record(index)));
        drop(producer);
        assert!(!consumer.is_finished());
        assert_eq!(consumer.pop(), Some(Recorded::Request(record(0))));
        assert!(!consumer.is_finished());
        let loss = DroppedRecords { count: 2, first: 10, last: 45 };
        assert_eq!(consumer.pop(), Some(Recorded::Dropped(loss)));
        assert!(consumer.is_finished());
        assert_eq!(consumer.pop(), None);
    }

    #[test]
    fn a_loss_covers_completions_out_of_order() {
        let (mut producer, mut consumer) = recording_ring(1);
        [0, 3, 1, 2].into_iter().for_each(|index| producer.push(record(index)));
        drop(producer);
        consumer.pop();
        let loss = DroppedRecords { count: 3, first: 10, last: 55 };
        assert_eq!(consumer.pop(), Some(Recorded::Dropped(loss)));
    }

    proptest! {
        #[test]
        fn a_place_keeps_all_of_a_record_or_loss(
            index in 0..LOSS,
            (submitted, completed) in any::<(u64, u64)>(),
            (vcpu_submitted, vcpu_completed) in any::<(u16, u16)>(),
            result in any::<i32>(),
        ) {
            let record =
                Record { index, submitted, completed, vcpu_submitted, vcpu_completed, result };
            prop_assert_eq!(Place::of_request(&record).recorded(), Recorded::Request(record));
            let dropped = DroppedRecords { count: index, first: submitted, last: completed };
            prop_assert_eq!(Place::of_loss(dropped).recorded(), Recorded::Dropped(dropped));
        }
    }

    /// The ring as one would write it without threads: the places, then the loss that waits.
    #[derive(Default)]
    struct Model {
        places: VecDeque<Recorded>,
        capacity: usize,
        waiting: Vec<Record>,
    }

    impl Model {
        fn loss(&self) -> Option<Recorded> {
            let first = self.waiting.iter().map(|record| record.submitted).min()?;
            let last = self.waiting.iter().map(|record| record.completed).max()?;
            let count = self.waiting.len() as u64;
            Some(Recorded::Dropped(DroppedRecords { count, first, last }))
        }

        fn push(&mut self, record: Record) {
            if let Some(loss) = self.loss()
                && self.places.len() < self.capacity
            {
                self.places.push_back(loss);
                self.waiting.clear();
            }
            if self.waiting.is_empty() && self.places.len() < self.capacity {
                self.places.push_back(Recorded::Request(record));
            } else {
                self.waiting.push(record);
            }
        }
    }

    proptest! {
        #[test]
        fn the_ring_does_what_its_model_does(
            capacity in 1_usize..6,
            steps in proptest::collection::vec((any::<bool>(), 0_u64..1000, 0_u64..1000), 0..200),
        ) {
            let (mut producer, mut consumer) = recording_ring(capacity);
            let mut model = Model { capacity, ..Model::default() };
            let mut index = 0;
            for (push, submitted, latency) in steps {
                if push {
                    let completed = submitted + latency;
                    let record = Record { submitted, completed, ..record(index) };
                    producer.push(record);
                    model.push(record);
                    index += 1;
                } else {
                    prop_assert_eq!(consumer.pop(), model.places.pop_front());
                }
                prop_assert!(!consumer.is_finished());
            }
            drop(producer);
            let rest = model.loss();
            for expected in model.places.into_iter().chain(rest) {
                prop_assert!(!consumer.is_finished());
                prop_assert_eq!(consumer.pop(), Some(expected));
            }
            prop_assert!(consumer.is_finished());
        }
    }

    /// Two threads, more records than places: what comes out is every index, once, in order, as a
    /// record or within the count of a loss.
    #[test]
    fn no_record_vanishes_between_threads() {
        const RECORDS: u64 = 200_000;
        let (mut producer, mut consumer) = recording_ring(64);
        let pushing = std::thread::spawn(move || {
            (0..RECORDS).for_each(|index| producer.push(record(index)));
            producer.dropped_count()
        });
        let mut next_index = 0;
        let mut dropped_count = 0;
        while !consumer.is_finished() {
            match consumer.pop() {
                Some(Recorded::Request(request)) => {
                    assert_eq!(request, record(next_index));
                    next_index += 1;
                }
                Some(Recorded::Dropped(dropped)) => {
                    assert_eq!(dropped.first, record(next_index).submitted);
                    next_index += dropped.count;
                    assert_eq!(dropped.last, record(next_index - 1).completed);
                    dropped_count += dropped.count;
                }
                None => std::thread::yield_now(),
            }
        }
        assert_eq!(next_index, RECORDS);
        assert_eq!(dropped_count, pushing.join().unwrap());
    }
}
