//! What of a domain is not in the plan, so that nothing is dropped without a word.

use super::known::{Aside, Fate, fate};
use super::text::quoted;
use roxmltree::Node;
use std::collections::{BTreeMap, BTreeSet};

/// How many elements of one name a comment shows in full; of more it has the number.
const SHOWN_MAX: usize = 4;

/// What was lost for one reason.
struct Loss {
    why: &'static str,
    line: u32,
    /// Each with how many there are of it.
    things: Vec<(String, usize)>,
}

/// What is not in the plan.
#[derive(Default)]
pub(super) struct Lost {
    losses: Vec<Loss>,
    aside: BTreeMap<Aside, BTreeSet<String>>,
    /// The first few things that no row knows, each with its line.
    unknown: Vec<(String, u32)>,
    more_unknown_count: usize,
}

impl Lost {
    /// Looks at all of a domain, and of its disks and controllers at those that the plan's disk is made of.
    pub(super) fn of(domain: Node<'_, '_>, of_disk: &[Node<'_, '_>]) -> Lost {
        let mut lost = Lost::default();
        lost.visit(domain, "", of_disk);
        lost
    }

    fn visit(&mut self, node: Node<'_, '_>, path: &str, of_disk: &[Node<'_, '_>]) {
        for attribute in node.attributes().filter(|attribute| attribute.namespace().is_none()) {
            let (separator, name) = (if path.is_empty() { "" } else { "/" }, attribute.name());
            let shown = format!("<{} {name}='{}'>", tag(node), quoted(attribute.value()));
            let known = fate(&format!("{path}{separator}@{name}"));
            let aside =
                if path.is_empty() { name.to_owned() } else { format!("{} {name}", tag(node)) };
            self.note(known, node, shown, aside);
        }
        for element in node.children().filter(Node::is_element) {
            let name = tag(element);
            if matches!(name.as_str(), "disk" | "controller")
                && path == "devices"
                && !of_disk.contains(&element)
            {
                continue;
            }
            let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            match fate(&below) {
                Some(Fate::Read) => self.visit(element, &below, of_disk),
                other => self.note(other, element, shown(element), name),
            }
        }
    }

    fn note(&mut self, fate: Option<Fate>, node: Node<'_, '_>, shown: String, name: String) {
        match fate {
            Some(Fate::Read) => {}
            Some(Fate::Aside(why)) => {
                self.aside.entry(why).or_default().insert(quoted(&name));
            }
            Some(Fate::LostUnless(_, is_as_in_a_plan)) if is_as_in_a_plan(node) => {}
            Some(Fate::Lost(why) | Fate::LostUnless(why, _)) => self.lose(why, shown, node),
            None if self.unknown.len() < SHOWN_MAX => self.unknown.push((shown, line_of(node))),
            None => self.more_unknown_count += 1,
        }
    }

    /// Notes something that is lost.
    fn lose(&mut self, why: &'static str, thing: String, node: Node<'_, '_>) {
        let at = self.losses.iter().position(|loss| loss.why == why);
        let at = at.unwrap_or_else(|| {
            let line = line_of(node);
            self.losses.push(Loss { why, line, things: Vec::new() });
            self.losses.len() - 1
        });
        let things = &mut self.losses[at].things;
        match things.iter_mut().find(|(known, _)| *known == thing) {
            Some((_, count)) => *count += 1,
            None => things.push((thing, 1)),
        }
    }

    /// The sentences, one a line.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for loss in &self.losses {
            let (things, line) = (listed(&loss.things), loss.line);
            lines.push(format!("Lost, line {line}: {things}: {}.", loss.why));
        }
        for (thing, line) in &self.unknown {
            lines.push(format!("Lost, line {line}: {thing}: vslice does not know it."));
        }
        let more = self.more_unknown_count;
        if more > 0 {
            lines.push(format!("Lost: {more} more that vslice does not know."));
        }
        let kinds = self.aside.iter().map(|(why, names)| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            format!("{} ({})", why.title(), names.join(", "))
        });
        let kinds: Vec<String> = kinds.collect();
        if !kinds.is_empty() {
            lines.push(format!("Left out, as a plan does not depend on it: {}.", kinds.join(", ")));
        }
        lines
    }
}

/// Every name is there, and of a few of one name all that they say.
fn listed(things: &[(String, usize)]) -> String {
    let name_of = |thing: &str| thing.split([' ', '>']).next().unwrap_or_default().to_owned();
    let mut names: Vec<String> = Vec::new();
    for (thing, _) in things {
        let name = name_of(thing);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let shown = names.iter().flat_map(|name| {
        let of_name: Vec<_> = things.iter().filter(|(thing, _)| name_of(thing) == *name).collect();
        let count: usize = of_name.iter().map(|(_, count)| count).sum();
        if of_name.len() > SHOWN_MAX {
            return vec![format!("{count} {name}>")];
        }
        let all = of_name.into_iter().map(|(thing, count)| {
            if *count == 1 { thing.clone() } else { format!("{count} {thing}") }
        });
        all.collect()
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// An element as people know it: `<quota> 20000`, `<vcpusched vcpus='1' scheduler='fifo' priority='1'>`. Of
/// one that says nothing itself, its first child.
fn shown(node: Node<'_, '_>) -> String {
    let mut children = node.children().filter(Node::is_element);
    match children.next() {
        Some(first) if node.attributes().len() == 0 => {
            let more = if children.next().is_some() { " ..." } else { "" };
            format!("<{}>{}{more}", tag(node), shown_alone(first))
        }
        _ => shown_alone(node),
    }
}

fn shown_alone(node: Node<'_, '_>) -> String {
    const ATTRIBUTES_MAX: usize = 4;
    let mut text = format!("<{}", tag(node));
    for attribute in node.attributes().take(ATTRIBUTES_MAX) {
        text.push_str(&format!(" {}='{}'", attribute.name(), quoted(attribute.value())));
    }
    text.push('>');
    let is_leaf = !node.children().any(|child| child.is_element());
    match node.text().map(quoted).filter(|value| is_leaf && !value.is_empty()) {
        Some(value) => format!("{text} {value}"),
        None => text,
    }
}

/// The name of an element, with the prefix that libvirt's documents have for its namespace.
fn tag(node: Node<'_, '_>) -> String {
    const OF_LIBVIRT: &str = "http://libvirt.org/schemas/domain/";
    let name = quoted(node.tag_name().name());
    match node.tag_name().namespace() {
        None => name,
        Some(namespace) => {
            let of_libvirt = namespace.strip_prefix(OF_LIBVIRT);
            let prefix = of_libvirt.and_then(|rest| rest.split('/').next()).unwrap_or("other");
            format!("{}:{name}", quoted(prefix))
        }
    }
}

/// The line of an element, from 1.
pub(super) fn line_of(node: Node<'_, '_>) -> u32 {
    node.document().text_pos_at(node.range().start).row
}
