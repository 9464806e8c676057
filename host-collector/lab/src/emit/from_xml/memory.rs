//! How much memory a domain has.

use super::text::kib_text;
use super::{FromXmlError, Reader, child, children};
use crate::plan::{MEMORY_MIB_MAX, MEMORY_MIB_MIN};
use roxmltree::Node;

/// The amount of an element, in KiB; none where it has no number or a strange unit.
pub(super) fn kib(node: Node<'_, '_>) -> Option<u64> {
    let amount = node.text()?.trim().parse().ok()?;
    kib_text(amount, node.attribute("unit").unwrap_or("KiB"))
}

impl<'a, 'x> Reader<'a, 'x> {
    /// What the guest has in all, in MiB. The cells of NUMA say it where `<memory>` does not
    /// (`virDomainDefPostParseMemory` in src/conf/domain_postparse.c, libvirt 11.3), and QEMU gets whole MiB.
    pub(super) fn memory_mib(&self) -> Result<u64, FromXmlError> {
        let of_element = match child(self.domain, "memory") {
            Some(memory) => self.amount(memory, memory.text().unwrap_or_default())?,
            None => 0,
        };
        let kib = if of_element > 0 { of_element } else { self.kib_of_cells()? };
        let mib = kib.div_ceil(1024);
        match mib {
            0 => Err(FromXmlError::Missing { origin: self.origin.to_owned(), element: "memory" }),
            MEMORY_MIB_MIN..=MEMORY_MIB_MAX => Ok(mib),
            _ => Err(self.limit("MiB of memory", mib, MEMORY_MIB_MIN, MEMORY_MIB_MAX)),
        }
    }

    fn kib_of_cells(&self) -> Result<u64, FromXmlError> {
        let numa = child(self.domain, "cpu").and_then(|cpu| child(cpu, "numa"));
        let cells = numa.into_iter().flat_map(|numa| children(numa, "cell"));
        let devices = child(self.domain, "devices");
        let plugged = devices.into_iter().flat_map(|devices| children(devices, "memory"));
        let sizes = plugged.filter_map(|memory| child(child(memory, "target")?, "size"));
        let mut kib: u64 = 0;
        for cell in cells.filter(|cell| cell.has_attribute("memory")) {
            let amount = self.amount(cell, cell.attribute("memory").unwrap_or_default())?;
            kib = kib.saturating_add(amount);
        }
        if kib > 0 {
            for size in sizes {
                kib = kib.saturating_add(self.amount(size, size.text().unwrap_or_default())?);
            }
        }
        Ok(kib)
    }

    fn amount(&self, node: Node<'_, '_>, text: &str) -> Result<u64, FromXmlError> {
        let amount: u64 = self.number(node, text, "amount of memory")?;
        let unit = node.attribute("unit").unwrap_or("KiB");
        kib_text(amount, unit).ok_or_else(|| self.value(node, unit, "unit of memory"))
    }
}
