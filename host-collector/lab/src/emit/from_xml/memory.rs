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

/// How much a domain has, in MiB, and what is to be said of it.
pub(super) struct Memory {
    pub(super) mib: u64,
    pub(super) note: Option<String>,
}

impl<'a, 'x> Reader<'a, 'x> {
    /// What the guest has in all. Where the cells of NUMA have memory, libvirt takes their sum, and what is
    /// plugged in, for `<memory>` (`virDomainDefPostParseMemory` in src/conf/domain_postparse.c, libvirt
    /// 11.3), and QEMU gets whole MiB for each.
    pub(super) fn memory(&self) -> Result<Memory, FromXmlError> {
        let told_mib = match child(self.domain, "memory") {
            Some(memory) => self.mib(memory, memory.text().unwrap_or_default())?,
            None => 0,
        };
        let cells_mib = self.mib_of_cells()?;
        let (mib, note) = match cells_mib {
            Some(cells_mib) => {
                let note = format!(
                    "<memory> is {told_mib} MiB; libvirt takes what the cells of NUMA have."
                );
                (cells_mib, (told_mib != cells_mib && told_mib > 0).then_some(note))
            }
            None => (told_mib, None),
        };
        match mib {
            0 => Err(FromXmlError::Missing { origin: self.origin.to_owned(), element: "memory" }),
            MEMORY_MIB_MIN..=MEMORY_MIB_MAX => Ok(Memory { mib, note }),
            _ => Err(self.limit("MiB of memory", mib, MEMORY_MIB_MIN, MEMORY_MIB_MAX)),
        }
    }

    /// What the cells have, with what is plugged in; none where no cell says it.
    fn mib_of_cells(&self) -> Result<Option<u64>, FromXmlError> {
        let numa = child(self.domain, "cpu").and_then(|cpu| child(cpu, "numa"));
        let cells = numa.into_iter().flat_map(|numa| children(numa, "cell"));
        let mut sizes = Vec::new();
        for cell in cells.filter(|cell| cell.has_attribute("memory")) {
            sizes.push(self.mib(cell, cell.attribute("memory").unwrap_or_default())?);
        }
        if sizes.is_empty() {
            return Ok(None);
        }
        let devices = child(self.domain, "devices");
        let plugged = devices.into_iter().flat_map(|devices| children(devices, "memory"));
        for size in plugged.filter_map(|memory| child(child(memory, "target")?, "size")) {
            sizes.push(self.mib(size, size.text().unwrap_or_default())?);
        }
        Ok(Some(sizes.into_iter().fold(0, u64::saturating_add)))
    }

    fn mib(&self, node: Node<'_, '_>, text: &str) -> Result<u64, FromXmlError> {
        let amount: u64 = self.number(node, text, "amount of memory")?;
        let unit = node.attribute("unit").unwrap_or("KiB");
        let kib = kib_text(amount, unit).ok_or_else(|| self.value(node, unit, "unit of memory"))?;
        Ok(kib.div_ceil(1024))
    }
}
