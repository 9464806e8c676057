//! From a file's bytes to the one domain that it is about, or a sentence about why there is none.

use super::text::quoted;
use super::{FromXmlError, child, children};
use roxmltree::{Document, Error, Node};
use std::borrow::Cow;

/// What libvirt and others wrap a domain in: the state of one that runs (`/run/libvirt/qemu/NAME.xml`), and what
/// was kept of one with a snapshot or a checkpoint.
const WRAPPERS: [&str; 3] = ["domstatus", "domainsnapshot", "domaincheckpoint"];

/// The text of a file: UTF-8, or UTF-16 with its mark, which a redirection on Windows writes.
///
/// # Errors
/// [`FromXmlError::Encoding`].
pub fn text_of<'a>(origin: &str, bytes: &'a [u8]) -> Result<Cow<'a, str>, FromXmlError> {
    let refused =
        |what: &str| FromXmlError::Encoding { origin: origin.to_owned(), what: what.to_owned() };
    let wide = |of_pair: fn([u8; 2]) -> u16| {
        let (pairs, _) = bytes[2..].as_chunks::<2>();
        let text = String::from_utf16(&pairs.iter().map(|pair| of_pair(*pair)).collect::<Vec<_>>());
        // What it says of its encoding held for the bytes.
        text.map(Cow::Owned).map_err(|_| refused("UTF-16 with surrogates that stand alone"))
    };
    match bytes {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(_) => Err(refused(&declared(bytes))),
        },
    }
}

/// What a file that is not UTF-8 says that it is.
fn declared(bytes: &[u8]) -> String {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(128)]).into_owned();
    let after = head.split_once("encoding=").and_then(|(_, after)| after.get(1..));
    let name = after.and_then(|after| after.split(['"', '\'']).next());
    name.map_or_else(|| "something else".to_owned(), quoted)
}

/// Reads a document.
pub(super) fn parse<'x>(origin: &str, xml: &'x str) -> Result<Document<'x>, FromXmlError> {
    // After the end of the first document there is another: each domain has to be a file of its own.
    let is_several = || xml.matches("</domain>").count() > 1;
    Document::parse(xml.trim_start_matches('\u{feff}')).map_err(|source| {
        let origin = origin.to_owned();
        match source {
            Error::DtdDetected => FromXmlError::Dtd { origin },
            Error::UnknownToken(_) | Error::UnexpectedDeclaration(_) if is_several() => {
                FromXmlError::Several { origin, names: String::new() }
            }
            source => FromXmlError::Syntax { origin, source },
        }
    })
}

/// The one domain of a document, and what it was wrapped in.
pub(super) fn domain<'a, 'x>(
    origin: &str,
    document: &'a Document<'x>,
) -> Result<(Node<'a, 'x>, Option<&'static str>), FromXmlError> {
    let root = document.root_element();
    let name = root.tag_name().name();
    if name == "domain" {
        return Ok((root, None));
    }
    // Capabilities have an element of that name too.
    let all = || children(root, "domain").filter(|domain| child(*domain, "name").is_some());
    let mut domains = all();
    let wrapper = WRAPPERS.into_iter().find(|wrapper| *wrapper == name);
    match (domains.next(), domains.next()) {
        (Some(only), None) => Ok((only, wrapper)),
        (Some(_), Some(_)) => {
            let name = |domain| child(domain, "name").and_then(|name| name.text());
            let names = all().map(|domain| quoted(name(domain).unwrap_or_default()));
            let names: Vec<String> = names.take(8).collect();
            let names = format!(" ({})", names.join(", "));
            Err(FromXmlError::Several { origin: origin.to_owned(), names })
        }
        (None, _) => Err(FromXmlError::NotDomain { origin: origin.to_owned(), root: quoted(name) }),
    }
}

/// Refuses what is no x86 machine of QEMU's on Linux.
pub(super) fn check_kind(origin: &str, domain: Node<'_, '_>) -> Result<(), FromXmlError> {
    let refused = |what: String| FromXmlError::Kind { origin: origin.to_owned(), what };
    match domain.attribute("type") {
        // libvirt demands a type; what people write by hand is mostly for KVM.
        Some("kvm" | "qemu") | None => {}
        Some(other) => {
            let other = quoted(other);
            return Err(refused(format!(
                "its type is {other}, and a plan's VMs are of kvm or qemu"
            )));
        }
    }
    let emulator = child(domain, "devices").and_then(|devices| child(devices, "emulator"));
    let emulator = emulator.and_then(|node| node.text()).unwrap_or_default().trim();
    let program = emulator.rsplit('/').next().unwrap_or_default();
    if program.starts_with("cloud-hypervisor") {
        return Err(refused(format!("its emulator is {}, not QEMU", quoted(program))));
    }
    let kind = child(domain, "os").and_then(|os| child(os, "type"));
    let of_program = program.strip_prefix("qemu-system-");
    match kind.and_then(|kind| kind.attribute("arch")).or(of_program) {
        None | Some("x86_64" | "i686" | "i386") => {}
        Some(arch) => {
            let arch = quoted(arch);
            return Err(refused(format!("its machine is {arch}, and a plan's VMs are x86-64")));
        }
    }
    match kind.and_then(|kind| kind.text()).map(str::trim) {
        None | Some("" | "hvm") => Ok(()),
        Some(other) => {
            let other = quoted(other);
            Err(refused(format!("its <os> is {other}, and a plan's VMs are whole machines (hvm)")))
        }
    }
}
