//! The disk of a domain, its controller, and what is said of it behind libvirt's back.

use super::super::libvirt::QEMU_NAMESPACE;
use super::{FromXmlError, Reader, child, children};
use roxmltree::Node;

/// The lines of a table, in the making.
struct Table(String);

impl Table {
    fn line(&mut self, key: &str, value: impl std::fmt::Display) {
        self.0.push_str(&format!("{key} = {value}\n"));
    }

    fn note(&mut self, sentence: &str) {
        self.0.push_str(&format!("# {sentence}\n"));
    }
}

impl<'a, 'x> Reader<'a, 'x> {
    /// The `[vm.disk]` of the first disk that a plan can have.
    pub(super) fn disk(&self) -> Result<Option<String>, FromXmlError> {
        let Some(devices) = child(self.domain, "devices") else { return Ok(None) };
        let mut disks = children(devices, "disk")
            .filter(|node| matches!(node.attribute("device"), None | Some("disk")));
        let Some((disk, bus)) = disks.by_ref().find_map(|disk| Some((disk, bus_of(disk)?))) else {
            return Ok(None);
        };
        let mut table = Table("\n[vm.disk]\n".to_owned());
        if disks.next().is_some() {
            table.note("Of the domain's disks this is the first; a plan has no more.");
        }
        table.line("bus", format!("\"{bus}\""));
        let driver = child(disk, "driver");
        let said = |attribute| driver.and_then(|driver| driver.attribute(attribute));
        if said("type").is_some_and(|format| format != "raw") {
            table.note("The domain's image is not raw; a plan's is.");
        }
        self.word(&mut table, driver, "cache", ("cache", &CACHES))?;
        self.word(&mut table, driver, "io", ("aio", &AIOS))?;
        match bus {
            "virtio-blk" => self.virtio(&mut table, driver, "virtio-disk0")?,
            "virtio-scsi" => {
                let controller = children(devices, "controller").find(|node| {
                    node.attribute("type") == Some("scsi")
                        && node.attribute("model").is_some_and(|model| model.starts_with("virtio"))
                });
                if controller.is_none() {
                    table.note("Assumed: its controller is virtio-scsi.");
                }
                let driver = controller.and_then(|node| child(node, "driver"));
                self.virtio(&mut table, driver, "scsi0")?;
            }
            _ => {}
        }
        table.note("Assumed: the domain does not say how large its image is.");
        table.line("size", "\"1GiB\"");
        Ok(Some(table.0))
    }

    /// One of a few words, or QEMU's default with a note.
    fn word(
        &self,
        table: &mut Table,
        driver: Option<Node<'a, 'x>>,
        attribute: &str,
        (key, words): (&str, &[&str]),
    ) -> Result<(), FromXmlError> {
        let said = driver.and_then(|node| Some((node, node.attribute(attribute)?)));
        match said.filter(|(_, word)| *word != "default") {
            Some((_, word)) if words.contains(&word) => table.line(key, format!("\"{word}\"")),
            Some((node, word)) => return Err(self.value(node, word, "way to read or cache")),
            None => {
                table.note("Assumed: QEMU's default.");
                table.line(key, format!("\"{}\"", words[0]));
            }
        }
        Ok(())
    }

    /// What a virtio disk's driver says, or that of its controller, whose alias is what `-set` names.
    fn virtio(
        &self,
        table: &mut Table,
        driver: Option<Node<'a, 'x>>,
        alias: &str,
    ) -> Result<(), FromXmlError> {
        let said = |attribute| driver.and_then(|node| Some((node, node.attribute(attribute)?)));
        let mapped = driver
            .and_then(|node| child(node, "iothreads"))
            .map_or(0, |node| children(node, "iothread").count());
        let is_set = |property: &str, value: &str| self.is_set(alias, property, value);
        if is_set("x-data-plane", "on") {
            table.note("It was x-data-plane=on, which became iothread= in QEMU 2.1.");
            table.line("iothread", true);
        } else if mapped > 0 || said("iothread").is_some() {
            table.line("iothread", true);
        }
        if mapped > 1 {
            table.line("iothreads", mapped);
        }
        if let Some((node, text)) = said("queues") {
            table.line("queues", self.number::<u16>(node, text, "number of queues")?);
        }
        if said("ioeventfd").is_some_and(|(_, word)| word == "off") {
            table.line("ioeventfd", false);
        }
        if is_set("vectors", "0") {
            table.line("msix", false);
        }
        Ok(())
    }

    /// Whether QEMU was told this of a device by `-set`, or by an override.
    fn is_set(&self, alias: &str, property: &str, value: &str) -> bool {
        let of_qemu = |name| move |node: &Node<'_, '_>| node.has_tag_name((QEMU_NAMESPACE, name));
        let all = || self.domain.descendants();
        let set = format!("device.{alias}.{property}={value}");
        let by_set =
            all().filter(of_qemu("arg")).any(|arg| arg.attribute("value") == Some(set.as_str()));
        let devices = all().filter(of_qemu("device"));
        let mut properties = devices
            .filter(|device| device.attribute("alias") == Some(alias))
            .flat_map(|device| device.descendants().filter(of_qemu("property")));
        by_set
            || properties.any(|node| {
                node.attribute("name") == Some(property) && node.attribute("value") == Some(value)
            })
    }
}

/// libvirt's words, QEMU's default first.
const CACHES: [&str; 5] = ["writeback", "none", "writethrough", "directsync", "unsafe"];
const AIOS: [&str; 3] = ["threads", "native", "io_uring"];

/// The plan's word for the bus of a disk, if it has one.
fn bus_of(disk: Node<'_, '_>) -> Option<&'static str> {
    let target = child(disk, "target")?;
    let by_name = match target.attribute("dev").unwrap_or_default().get(..2) {
        Some("vd") => "virtio",
        Some("sd") => "scsi",
        Some("hd") => "ide",
        _ => "",
    };
    match target.attribute("bus").unwrap_or(by_name) {
        "virtio" => Some("virtio-blk"),
        "scsi" => Some("virtio-scsi"),
        "ide" => Some("ide"),
        "sata" => Some("ahci"),
        _ => None,
    }
}
