//! The requests of one guest, as a join takes them: read once, in order of submission, on the host's clock.

use super::observer::Observers;
use crate::summary::VmIndex;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::IntoIter;
use vslice_core::join::{Clocks, Placed, SubmissionOrder};
use vslice_core::units::VcpuId;
use vslice_trace::{RequestItem, RunDir, StoreError, StreamReader, Tail, VmName};
use vslice_wire::Request;

/// What became of a stream of requests while a join has pulled them.
#[derive(Debug, Default)]
pub(super) struct RequestsRead {
    /// How many of those that have a place on the host's clock were submitted on each vCPU.
    pub(super) submitted_on: BTreeMap<VcpuId, u64>,
    /// How the stream ends, once it has.
    pub(super) tail: Option<Tail>,
    /// Why the rest of it could not be read.
    pub(super) error: Option<StoreError>,
}

/// The requests of a guest as they are stored; tells of what is stored between them.
struct StoredRequests<'o> {
    vm: VmIndex,
    stream: StreamReader<RequestItem>,
    block: IntoIter<RequestItem>,
    observers: Rc<Observers<'o>>,
    read: Rc<RefCell<RequestsRead>>,
}

impl StoredRequests<'_> {
    fn next_block(&mut self) -> Option<IntoIter<RequestItem>> {
        let block = self.stream.next_block().unwrap_or_else(|error| {
            self.read.borrow_mut().error.get_or_insert(error);
            None
        });
        if block.is_none() {
            self.read.borrow_mut().tail = self.stream.tail();
        }
        block.map(Vec::into_iter)
    }
}

impl Iterator for StoredRequests<'_> {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        loop {
            match self.block.next() {
                Some(RequestItem::Request(request)) => return Some(request),
                Some(RequestItem::Dropped(dropped)) => {
                    self.observers.tell(|observer| observer.dropped_requests(self.vm, &dropped));
                }
                None => self.block = self.next_block()?,
            }
        }
    }
}

/// The requests of a guest that have a place on the host's clock; tells of those that have none.
pub(super) struct PlacedRequests<'o> {
    vm: VmIndex,
    requests: SubmissionOrder<StoredRequests<'o>>,
    clocks: Clocks,
    observers: Rc<Observers<'o>>,
    read: Rc<RefCell<RequestsRead>>,
}

impl<'o> PlacedRequests<'o> {
    /// Those of the guest with this name, by its clocks.
    ///
    /// # Errors
    /// When there is no such stream, or it is none.
    pub(super) fn open(
        run: &RunDir,
        (vm, name): (VmIndex, &VmName),
        clocks: Clocks,
        observers: &Rc<Observers<'o>>,
    ) -> Result<PlacedRequests<'o>, StoreError> {
        let read = Rc::<RefCell<RequestsRead>>::default();
        let stored = StoredRequests {
            vm,
            stream: StreamReader::open(&run.requests_path(name))?,
            block: Vec::new().into_iter(),
            observers: Rc::clone(observers),
            read: Rc::clone(&read),
        };
        let (requests, observers) = (SubmissionOrder::new(stored), Rc::clone(observers));
        Ok(PlacedRequests { vm, requests, clocks, observers, read })
    }

    /// What has become of the stream so far, for when a join has them.
    pub(super) fn read(&self) -> Rc<RefCell<RequestsRead>> {
        Rc::clone(&self.read)
    }
}

impl Iterator for PlacedRequests<'_> {
    type Item = Placed;

    fn next(&mut self) -> Option<Placed> {
        loop {
            let request = self.requests.next()?;
            match self.clocks.place(request) {
                Ok(placed) => {
                    let vcpu = VcpuId(request.vcpu_submitted);
                    *self.read.borrow_mut().submitted_on.entry(vcpu).or_insert(0) += 1;
                    return Some(placed);
                }
                Err(why) => self
                    .observers
                    .tell(|observer| observer.unplaced_request(self.vm, &request, why)),
            }
        }
    }
}
