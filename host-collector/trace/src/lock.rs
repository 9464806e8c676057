//! QEMU's big lock: where it is, and what proves it.

use serde::{Deserialize, Serialize};
use vslice_core::units::Tid;

/// Where the big lock of one QEMU is, as found just before recording began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRecord {
    /// The lock; `None` if it was not found or not looked for.
    pub bql: Option<Bql>,
    /// Why it was not found, as a sentence without its full stop.
    pub bql_missing: Option<String>,
    /// Where QEMU's variables are, which tells something about locks even if the lock's address is unknown.
    pub exe_data: Option<ExeData>,
}

/// The BQL of one running QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bql {
    /// Its address in QEMU's memory, and with that the `uaddr` of every futex(2) call for it:
    /// `pthread_mutex_t` begins with the lock word (glibc: sysdeps/x86/nptl/bits/struct_mutex.h).
    pub address: u64,
    /// The function that takes it; its instructions name it.
    pub symbol: String,
    /// The function that releases it; its instructions name the same address. Runs of older vslices have
    /// only the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlock_symbol: Option<String>,
    /// A thread of this QEMU, by its host thread id, that held the lock when it was read: proof that this is
    /// a mutex of QEMU. `None` if it was free at every read; then the check is only that QEMU's memory holds
    /// the function that was searched, and a free mutex.
    pub owner_seen: Option<Tid>,
    /// How often it was read; reading stops once an owner is seen.
    pub looks_count: u32,
}

impl Bql {
    /// What was checked, to follow the address in a sentence.
    #[must_use]
    pub fn check(&self) -> String {
        let code = match &self.unlock_symbol {
            Some(unlock) => format!(
                "{} and {unlock} name it, and both match their file in QEMU's memory",
                self.symbol
            ),
            None => format!("{} in QEMU's memory matches its file", self.symbol),
        };
        match self.owner_seen {
            Some(owner) => format!("{code}, and QEMU's thread {owner} was seen holding the lock"),
            None => format!(
                "{code}, and the lock was free each time it was read ({})",
                self.looks_count
            ),
        }
    }
}

/// Where a running QEMU keeps its variables: the writable part of its executable, from the first byte of
/// `.data` to the last of `.bss`, without what is read-only after relocation. A mutex in it belongs to QEMU
/// itself and not to a device, whose memory is on the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExeData {
    /// The first address.
    pub start: u64,
    /// The first address after it.
    pub end: u64,
}

impl ExeData {
    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}
