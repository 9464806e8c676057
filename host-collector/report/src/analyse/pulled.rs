//! A stream of a guest's requests that a join pulls: one item after the other, and how it ends for whoever asks when the
//! join has done with it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::vec::IntoIter;
use vslice_core::units::VcpuId;
use vslice_trace::{Columnar, StoreError, StreamReader, Tail};

/// What became of a stream while a join has pulled it.
#[derive(Debug, Default)]
pub(super) struct Pulled {
    /// How many of the requests that have a place on the host's clock have it by each vCPU's.
    pub(super) placed_by: BTreeMap<VcpuId, u64>,
    /// How the stream ends, once it has.
    pub(super) tail: Option<Tail>,
    /// Why the rest of it could not be read.
    pub(super) error: Option<StoreError>,
}

/// The same for whoever looks at it later.
pub(super) type SharedPulled = Rc<RefCell<Pulled>>;

/// The items of a stream.
pub(super) struct Items<Item: Columnar> {
    stream: StreamReader<Item>,
    block: IntoIter<Item>,
    pulled: SharedPulled,
}

impl<Item: Columnar> Items<Item> {
    /// # Errors
    /// When there is no such stream, or it is none.
    pub(super) fn open(path: &Path) -> Result<Items<Item>, StoreError> {
        let (block, pulled) = (Vec::new().into_iter(), SharedPulled::default());
        Ok(Items { stream: StreamReader::open(path)?, block, pulled })
    }

    /// What has become of it so far.
    pub(super) fn pulled(&self) -> SharedPulled {
        Rc::clone(&self.pulled)
    }

    fn next_block(&mut self) -> Option<IntoIter<Item>> {
        let block = self.stream.next_block().unwrap_or_else(|error| {
            self.pulled.borrow_mut().error.get_or_insert(error);
            None
        });
        if block.is_none() {
            self.pulled.borrow_mut().tail = self.stream.tail();
        }
        block.map(Vec::into_iter)
    }
}

impl<Item: Columnar> Iterator for Items<Item> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            match self.block.next() {
                Some(item) => return Some(item),
                None => self.block = self.next_block()?,
            }
        }
    }
}
