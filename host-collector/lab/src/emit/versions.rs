//! Since which QEMU something is understood, and until which: [`CUT_OVERS`].

use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// A release of QEMU. Its third number changes nothing that is emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QemuVersion {
    /// The first number.
    pub major: u16,
    /// The second.
    pub minor: u16,
}

/// A text that names no version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no version of QEMU: two or three numbers with dots between, as in 7.2")]
pub struct VersionError(String);

/// Something that not every QEMU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// `x-data-plane=on`.
    XDataPlane,
    /// A dataplane needs `scsi=off`, which is not the default.
    ScsiToBeOff,
    /// A dataplane needs `config-wce=off`, which is not the default.
    ConfigWceToBeOff,
    /// The device `nvme`.
    Nvme,
    /// `debug-threads=on`, without which threads have no names.
    DebugThreads,
    /// `iothread=` on virtio-blk.
    BlkIothread,
    /// `-cpu host,migratable=off`.
    Migratable,
    /// `iothread=` on virtio-scsi.
    ScsiIothread,
    /// `iothread=` on virtio-scsi, through libvirt.
    LibvirtScsiIothread,
    /// `num-queues` on virtio-blk.
    BlkQueues,
    /// `vhost-vsock-pci`.
    Vsock,
    /// `-blockdev`, `-accel`, `poll-max-ns`, `-cpu max`: the form of vslice's own runs.
    ModernForm,
    /// `aio=io_uring`.
    IoUring,
    /// libvirt writes `-device` as JSON, for which its `-set` has no ear, and offers `<qemu:override>`.
    JsonDevices,
    /// `iothread-vq-mapping` on virtio-blk.
    VqMapping,
    /// `iothread-vq-mapping` on virtio-scsi.
    ScsiVqMapping,
    /// The device `nvme`, through libvirt.
    LibvirtNvme,
}

/// From which release on something holds, and before which.
#[derive(Debug, Clone, Copy)]
pub struct CutOver {
    /// What.
    pub feature: Feature,
    /// The first release that has it.
    pub since: QemuVersion,
    /// The first that has it no more.
    pub until: Option<QemuVersion>,
    /// Where that is written.
    pub source: &'static str,
}

const fn since(feature: Feature, major: u16, minor: u16, source: &'static str) -> CutOver {
    CutOver { feature, since: QemuVersion { major, minor }, until: None, source }
}

const fn between(
    feature: Feature,
    since: (u16, u16),
    until: (u16, u16),
    source: &'static str,
) -> CutOver {
    let until = Some(QemuVersion { major: until.0, minor: until.1 });
    CutOver { feature, since: QemuVersion { major: since.0, minor: since.1 }, until, source }
}

/// The first QEMU with a dataplane, and the oldest that anything is emitted for.
pub const OLDEST: QemuVersion = QemuVersion { major: 1, minor: 4 };

/// Every cut-over that emission knows, oldest first. Names are those of QEMU's commits and files, with
/// the tag where they were read; "not read" marks what is known without its source at hand.
///
/// That 2.1 to 2.4 understand both `x-data-plane` and `iothread=` is two lines that overlap: the newer
/// form is emitted, since the older crashed before it was removed (a616fb75c2).
///
/// From 10.1 to 11.1 nothing else of what is emitted has changed: by `-device ...,help` and `-object ...,help` of
/// Debian's 10.0.2 and 11.1.3, and by docs/about/deprecated.rst as it was between v11.0.0 and v11.1.0. The sources of
/// 10.1 and of 11.1 were not at hand. 11.1.3 warns of `-mon`, which is not emitted.
///
/// `scsi=` is emitted where a dataplane needs it and it is not the default, so never from 2.5 on; QEMU
/// 9.1 removed the property (docs/about/removed-features.rst:513@10.0).
pub const CUT_OVERS: [CutOver; 17] = [
    between(
        Feature::XDataPlane,
        (1, 4),
        (2, 5),
        "392808b49b (v1.4.0-rc0) to a616fb75c2 (v2.5.0-rc3)",
    ),
    between(
        Feature::ScsiToBeOff,
        (1, 4),
        (2, 5),
        "hw/dataplane/virtio-blk.c@1.4.0: \"device is incompatible with x-data-plane, use scsi=off\", \
         also of iothread= in 2.1; off by default in 2.5 (HW_COMPAT_2_4, not read)",
    ),
    between(
        Feature::ConfigWceToBeOff,
        (1, 4),
        (2, 1),
        "hw/dataplane/virtio-blk.c@1.4.0: \"use config-wce=off\"; gone in 32a877e405 (v2.1.0-rc0)",
    ),
    since(Feature::Nvme, 1, 6, "hw/block/nvme.c (v1.6.0, not read)"),
    between(
        Feature::DebugThreads,
        (2, 0),
        (11, 0),
        "-name, debug-threads=on (v2.0.0); threads always have names since 11.0, which ignores it \
         (docs/about/deprecated.rst, after v11.0.0: \"deprecated since 11.0\")",
    ),
    since(Feature::BlkIothread, 2, 1, "8698e110f8, 32a877e405 (v2.1.0-rc0)"),
    since(Feature::Migratable, 2, 1, "target-i386/cpu.c, \"migratable\" (v2.1.0, not read)"),
    since(Feature::ScsiIothread, 2, 2, "19d339f11d (v2.2.0-rc0)"),
    since(Feature::LibvirtScsiIothread, 2, 4, "libvirt-list 2016-April/128541"),
    since(Feature::BlkQueues, 2, 7, "2f2705908f (v2.7.0-rc0)"),
    since(Feature::Vsock, 2, 8, "hw/virtio/vhost-vsock.c (v2.8.0, not read)"),
    since(
        Feature::ModernForm,
        2,
        9,
        "qapi/misc.json, IOThreadInfo, poll-max-ns: \"since 2.9\"; -blockdev, -accel, -cpu max (not read)",
    ),
    since(Feature::IoUring, 5, 0, "qapi/block-core.json, BlockdevAioOptions: \"Since 5.0\""),
    since(
        Feature::JsonDevices,
        6,
        2,
        "gitlab.com/libvirt/libvirt/-/issues/287: -set is broken by JSON, used from QEMU 6.2 on",
    ),
    since(Feature::VqMapping, 9, 0, "qapi/virtio.json: \"Since 9.0\"; b6948ab01d"),
    since(Feature::ScsiVqMapping, 10, 0, "hw/scsi/virtio-scsi.c@10.0.0, virtio_scsi_properties"),
    since(
        Feature::LibvirtNvme,
        10,
        1,
        "NEWS.rst of libvirt 11.5.0 (July 2025), which whoever has QEMU 10.1 (August 2025) will have",
    ),
];

impl QemuVersion {
    /// This release.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> QemuVersion {
        QemuVersion { major, minor }
    }

    /// Whether it has this.
    #[must_use]
    pub fn has(self, feature: Feature) -> bool {
        CUT_OVERS.iter().any(|cut| {
            cut.feature == feature
                && cut.since <= self
                && cut.until.is_none_or(|until| self < until)
        })
    }

    /// From what `qemu-system-x86_64 --version` prints: `QEMU emulator version 7.2.22 (Debian ...)`.
    ///
    /// # Errors
    /// [`VersionError`].
    pub fn from_banner(line: &str) -> Result<QemuVersion, VersionError> {
        let rest = line.strip_prefix("QEMU emulator version ");
        let word = rest.and_then(|rest| rest.split([' ', ',', '(']).next());
        word.unwrap_or(line).parse()
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for QemuVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<QemuVersion, VersionError> {
        let numbers: Option<Vec<u16>> = text.split('.').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some([major, minor] | [major, minor, _]) => Ok(QemuVersion::new(*major, *minor)),
            _ => Err(VersionError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_people_and_qemu_write_it() {
        assert_eq!("2.0".parse(), Ok(QemuVersion::new(2, 0)));
        assert_eq!("10.0.2".parse(), Ok(QemuVersion::new(10, 0)));
        let banners = [
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", (7, 2)),
            ("QEMU emulator version 2.0.0, Copyright (c) 2003-2008 Fabrice Bellard", (2, 0)),
        ];
        for (banner, (major, minor)) in banners {
            assert_eq!(QemuVersion::from_banner(banner), Ok(QemuVersion::new(major, minor)));
        }
        for text in ["", "7", "7.x", "1.2.3.4", "QEMU 7.2", "70000.1"] {
            assert!(text.parse::<QemuVersion>().is_err(), "{text}");
        }
        assert!(QemuVersion::new(10, 0) > QemuVersion::new(9, 1), "not by letters");
    }

    #[test]
    fn threads_have_names_without_being_asked_from_11_0_on() {
        let bands =
            [("1.7", false), ("2.0", true), ("10.2", true), ("11.0", false), ("11.1", false)];
        for (text, expected) in bands {
            let version: QemuVersion = text.parse().expect("a version");
            assert_eq!(version.has(Feature::DebugThreads), expected, "{version}");
        }
    }

    #[test]
    fn each_band_has_its_form_of_a_dataplane() {
        let bands = [
            ("1.3", [false, false, false, false]),
            ("1.4", [true, true, false, false]),
            ("2.0", [true, true, false, false]),
            ("2.1", [true, false, true, false]),
            ("2.4", [true, false, true, false]),
            ("2.5", [false, false, true, false]),
            ("8.2", [false, false, true, false]),
            ("9.0", [false, false, true, true]),
            ("10.0", [false, false, true, true]),
            ("10.1", [false, false, true, true]),
            ("10.2", [false, false, true, true]),
            ("11.0", [false, false, true, true]),
            ("11.1", [false, false, true, true]),
        ];
        let features = [
            Feature::XDataPlane,
            Feature::ConfigWceToBeOff,
            Feature::BlkIothread,
            Feature::VqMapping,
        ];
        for (text, expected) in bands {
            let version: QemuVersion = text.parse().expect("a version");
            assert_eq!(features.map(|feature| version.has(feature)), expected, "{version}");
        }
    }
}
