//! The disk of a domain, its controller, and what is said of it behind libvirt's back.

use super::super::libvirt::QEMU_NAMESPACE;
use super::{FromXmlError, Reader, child, children};
use roxmltree::Node;
use vslice_host::disk::{Aio, Bus, Cache, Disk, DiskBus};

/// The first disk of a domain that a plan can have.
struct DomainDisk {
    disk: Disk,
    /// What its driver says of the cache.
    cache: Option<Cache>,
    /// What a reader of the plan should know.
    notes: Vec<&'static str>,
}

impl<'a, 'x> Reader<'a, 'x> {
    /// The `[vm.disk]` of the first disk that a plan can have.
    pub(super) fn disk(&self) -> Result<Option<String>, FromXmlError> {
        Ok(self.domain_disk()?.map(|disk| disk.toml()))
    }

    fn domain_disk(&self) -> Result<Option<DomainDisk>, FromXmlError> {
        let Some(devices) = child(self.domain, "devices") else { return Ok(None) };
        let mut disks = children(devices, "disk")
            .filter(|node| matches!(node.attribute("device"), None | Some("disk")));
        let Some((node, bus)) = disks.by_ref().find_map(|disk| Some((disk, bus_of(disk)?))) else {
            return Ok(None);
        };
        let mut notes = Vec::new();
        if disks.next().is_some() {
            notes.push("Of the domain's disks this is the first; a plan has no more.");
        }
        let driver = child(node, "driver");
        let format = driver.and_then(|driver| driver.attribute("type"));
        if format.is_some_and(|format| format != "raw") {
            notes.push("The domain's image is not raw; a plan's is.");
        }
        let mut disk = Disk {
            format: format.map(str::to_owned),
            aio: self.word(driver, "io", Aio::of_name)?,
            ..Disk::new(Bus::Known(bus))
        };
        let cache = self.word(driver, "cache", Cache::of_name)?;
        if let Some(cache) = cache {
            disk = disk.cached(cache);
        }
        match bus {
            DiskBus::VirtioBlk => self.virtio(&mut disk, &mut notes, driver, "virtio-disk0")?,
            DiskBus::VirtioScsi => {
                let controller = children(devices, "controller").find(|node| {
                    node.attribute("type") == Some("scsi")
                        && node.attribute("model").is_some_and(|model| model.starts_with("virtio"))
                });
                if controller.is_none() {
                    notes.push("Assumed: its controller is virtio-scsi.");
                }
                let driver = controller.and_then(|node| child(node, "driver"));
                self.virtio(&mut disk, &mut notes, driver, "scsi0")?;
            }
            DiskBus::Ide | DiskBus::Ahci | DiskBus::Nvme => {}
        }
        Ok(Some(DomainDisk { disk, cache, notes }))
    }

    /// What one of a few words stands for; `None` where the domain does not say it.
    fn word<T>(
        &self,
        driver: Option<Node<'a, 'x>>,
        attribute: &str,
        of_name: fn(&str) -> Option<T>,
    ) -> Result<Option<T>, FromXmlError> {
        let said = driver.and_then(|node| Some((node, node.attribute(attribute)?)));
        match said.filter(|(_, word)| *word != "default") {
            Some((node, word)) => match of_name(word) {
                Some(value) => Ok(Some(value)),
                None => Err(self.value(node, word, "way to read or cache")),
            },
            None => Ok(None),
        }
    }

    /// What a virtio disk's driver says, or that of its controller, whose alias is what `-set` names.
    fn virtio(
        &self,
        disk: &mut Disk,
        notes: &mut Vec<&'static str>,
        driver: Option<Node<'a, 'x>>,
        alias: &str,
    ) -> Result<(), FromXmlError> {
        let said = |attribute| driver.and_then(|node| Some((node, node.attribute(attribute)?)));
        let id = |node: Node<'_, '_>| format!("iothread{}", node.attribute("id").unwrap_or("1"));
        let mapping = driver.and_then(|node| child(node, "iothreads"));
        let mapped = mapping.into_iter().flat_map(|node| children(node, "iothread"));
        disk.iothreads = mapped.map(id).collect();
        let is_set = |property: &str, value: &str| self.is_set(alias, property, value);
        if is_set("x-data-plane", "on") {
            notes.push("It was x-data-plane=on, which became iothread= in QEMU 2.1.");
            disk.iothreads = vec!["iothread1".to_owned()];
        } else if let (true, Some((_, id))) = (disk.iothreads.is_empty(), said("iothread")) {
            disk.iothreads = vec![format!("iothread{id}")];
        }
        if let Some((node, text)) = said("queues") {
            disk.queues = Some(self.number(node, text, "number of queues")?);
        }
        disk.ioeventfd = said("ioeventfd").map(|(_, word)| word != "off");
        disk.msix = is_set("vectors", "0").then_some(false);
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

impl DomainDisk {
    /// The table of a plan, in which what the domain does not say is QEMU's default, with a note.
    fn toml(&self) -> String {
        let disk = &self.disk;
        let mut lines = vec![String::new(), "[vm.disk]".to_owned()];
        lines.extend(self.notes.iter().map(|note| format!("# {note}")));
        lines.push(format!("bus = \"{}\"", disk.bus));
        let mut word = |key: &str, told: Option<&str>, default: &str| {
            if told.is_none() {
                lines.push("# Assumed: QEMU's default.".to_owned());
            }
            lines.push(format!("{key} = \"{}\"", told.unwrap_or(default)));
        };
        word("cache", self.cache.map(Cache::name), Cache::Writeback.name());
        word("aio", disk.aio.map(Aio::name), Aio::Threads.name());
        if !disk.iothreads.is_empty() {
            lines.push("iothread = true".to_owned());
        }
        if disk.iothreads.len() > 1 {
            lines.push(format!("iothreads = {}", disk.iothreads.len()));
        }
        lines.extend(disk.queues.map(|queues| format!("queues = {queues}")));
        lines.extend((disk.ioeventfd == Some(false)).then(|| "ioeventfd = false".to_owned()));
        lines.extend((disk.msix == Some(false)).then(|| "msix = false".to_owned()));
        lines.push("# Assumed: the domain does not say how large its image is.".to_owned());
        lines.push("size = \"1GiB\"\n".to_owned());
        lines.join("\n")
    }
}

/// The bus of a disk, if a plan can have it.
fn bus_of(disk: Node<'_, '_>) -> Option<DiskBus> {
    let target = child(disk, "target")?;
    let by_name = match target.attribute("dev").unwrap_or_default().get(..2) {
        Some("vd") => "virtio",
        Some("sd") => "scsi",
        Some("hd") => "ide",
        _ => "",
    };
    match target.attribute("bus").unwrap_or(by_name) {
        "virtio" => Some(DiskBus::VirtioBlk),
        "scsi" => Some(DiskBus::VirtioScsi),
        "ide" => Some(DiskBus::Ide),
        "sata" => Some(DiskBus::Ahci),
        _ => None,
    }
}
