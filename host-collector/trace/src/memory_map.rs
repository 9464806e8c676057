//! The devices of a guest by their addresses.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use vslice_core::timeline::DeviceAddress;

/// The devices that a vCPU can access, by address; empty if unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryMap {
    /// Ranges of I/O ports, ascending and not overlapping.
    pub ports: Vec<DeviceRange>,
    /// Ranges of guest-physical addresses without RAM, ascending and not overlapping.
    pub memory: Vec<DeviceRange>,
}

/// Addresses that belong to one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRange {
    /// The first address.
    pub first: u64,
    /// The last address.
    pub last: u64,
    /// QEMU's name of its memory region: `ide`, `virtio-pci-notify-virtio-blk`, `acpi-tmr`.
    pub name: String,
}

impl MemoryMap {
    /// The device at an I/O port; `None` if there is none or it is unknown.
    #[must_use]
    pub fn device_at_port(&self, port: u16) -> Option<&str> {
        device_at(&self.ports, port.into())
    }

    /// The device at a guest-physical address; `None` for RAM, if there is none, or if it is unknown.
    #[must_use]
    pub fn device_at_memory(&self, address: u64) -> Option<&str> {
        device_at(&self.memory, address)
    }

    /// The device at an address: its name if it is known, else the address.
    #[must_use]
    pub fn device(&self, at: DeviceAddress) -> String {
        let (name, address) = match at {
            DeviceAddress::Port(port) => (self.device_at_port(port), format!("port {port:#x}")),
            DeviceAddress::Memory(address) => {
                (self.device_at_memory(address), format!("memory {address:#x}"))
            }
        };
        name.map_or(address, str::to_owned)
    }

    /// Whether no device is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.memory.is_empty()
    }
}

fn device_at(ranges: &[DeviceRange], address: u64) -> Option<&str> {
    let found = ranges.binary_search_by(|range| match (range.first, range.last) {
        (first, _) if first > address => Ordering::Greater,
        (_, last) if last < address => Ordering::Less,
        _ => Ordering::Equal,
    });
    found.ok().map(|index| ranges[index].name.as_str())
}
