//! libvirt's schema of a domain, walked as far as `plan from-xml` looks: whatever it allows has to have a
//! row in the reader's list, so that nothing is dropped without a word.

use libtest_mimic::Failed;
use roxmltree::{Document, Node};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use vslice_lab::emit::from_xml::{Row, row, rows};

/// The files in which the schema defines what a domain can have.
const FILES: [&str; 9] = [
    "domaincommon.rng",
    "basictypes.rng",
    "cputypes.rng",
    "domainoverrides.rng",
    "networkcommon.rng",
    "nwfilter_params.rng",
    "privatedata.rng",
    "storagecommon.rng",
    "domain.rng",
];

/// What libvirt writes into its own state of a running domain only.
const OF_STATES: [&str; 1] = ["devices/disk/diskSecretsPlacement"];

pub(crate) fn every_path_has_a_row(schemas: &Path) -> Result<(), Failed> {
    let texts: Vec<String> = FILES
        .iter()
        .map(|file| fs::read_to_string(schemas.join(file)))
        .collect::<Result<_, _>>()?;
    let documents: Vec<Document<'_>> =
        texts.iter().map(|text| Document::parse(text)).collect::<Result<_, _>>()?;
    let mut walk = Walk::default();
    for document in &documents {
        for define in document.descendants().filter(|node| node.has_tag_name("define")) {
            walk.defines
                .entry(define.attribute("name").unwrap_or_default())
                .or_default()
                .push(define);
        }
    }
    walk.below(walk_root(&walk)?, "");
    if !walk.without.is_empty() {
        return Err(format!("no row in known.rs for {:#?}", walk.without).into());
    }
    // A row that is about nothing is a word misspelt.
    let seen = |path: &str| {
        walk.seen.contains(path)
            || path
                .strip_suffix('*')
                .is_some_and(|start| walk.seen.iter().any(|seen| seen.starts_with(start)))
    };
    let strange: Vec<&str> =
        rows().filter(|path| !seen(path) && !OF_STATES.contains(path)).collect();
    if strange.is_empty() {
        Ok(())
    } else {
        Err(format!("not in libvirt's schema: {strange:#?}").into())
    }
}

fn walk_root<'a, 'x>(walk: &Walk<'a, 'x>) -> Result<Node<'a, 'x>, Failed> {
    let domain = walk.defines.get("domain").and_then(|defines| defines.first()).copied();
    let domain = domain.ok_or("the schema defines no domain")?;
    let element = domain.descendants().find(|node| node.has_tag_name("element"));
    Ok(element.ok_or("the schema's domain is no element")?)
}

#[derive(Default)]
struct Walk<'a, 'x> {
    defines: BTreeMap<&'a str, Vec<Node<'a, 'x>>>,
    /// Definitions, and where they were followed.
    followed: BTreeSet<(&'a str, String)>,
    seen: BTreeSet<String>,
    without: BTreeSet<String>,
}

impl<'a, 'x> Walk<'a, 'x> {
    /// Whatever can be in an element or an attribute group that is at this path.
    fn below(&mut self, node: Node<'a, 'x>, path: &str) {
        let separator = if path.is_empty() { "" } else { "/" };
        for part in node.children().filter(Node::is_element) {
            match part.tag_name().name() {
                "ref" => {
                    let name = part.attribute("name").unwrap_or_default();
                    if self.followed.insert((name, path.to_owned())) {
                        for define in self.defines.get(name).cloned().unwrap_or_default() {
                            self.below(define, path);
                        }
                    }
                }
                "element" => {
                    for name in names(part) {
                        let path = format!("{path}{separator}{}{name}", prefix(part));
                        if self.has_row(&path) == Some(Row::Open) {
                            self.below(part, &path);
                        }
                    }
                }
                "attribute" => {
                    for name in names(part) {
                        self.has_row(&format!("{path}{separator}@{name}"));
                    }
                }
                _ => self.below(part, path),
            }
        }
    }

    fn has_row(&mut self, path: &str) -> Option<Row> {
        self.seen.insert(path.to_owned());
        let row = row(path);
        if row.is_none() {
            self.without.insert(path.to_owned());
        }
        row
    }
}

/// The name of an element or an attribute, or all that it can have. Any name at all has metadata only.
fn names<'a>(node: Node<'a, '_>) -> Vec<&'a str> {
    if let Some(name) = node.attribute("name") {
        return vec![name];
    }
    let first = node.children().find(Node::is_element);
    let names = first.into_iter().flat_map(|first| first.descendants());
    names
        .filter(|node| node.has_tag_name("name"))
        .filter_map(|node| node.text().map(str::trim))
        .collect()
}

/// What libvirt's documents write before the names of other namespaces.
fn prefix(node: Node<'_, '_>) -> String {
    let namespace = node.ancestors().find_map(|node| node.attribute("ns")).unwrap_or_default();
    let rest = namespace.strip_prefix("http://libvirt.org/schemas/domain/");
    rest.and_then(|rest| rest.split('/').next()).map(|name| format!("{name}:")).unwrap_or_default()
}
