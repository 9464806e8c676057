//! Elements, and how they are written: no more than a domain needs.

/// An element of a document.
#[derive(Debug, Clone)]
pub(super) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    text: Option<String>,
    children: Vec<Node>,
}

#[derive(Debug, Clone)]
enum Node {
    Element(Element),
    Comment(String),
}

impl Element {
    pub(super) fn new(name: &'static str) -> Element {
        Element { name, attributes: Vec::new(), text: None, children: Vec::new() }
    }

    pub(super) fn with(mut self, attribute: &'static str, value: impl ToString) -> Element {
        self.attributes.push((attribute, value.to_string()));
        self
    }

    pub(super) fn text(mut self, text: impl ToString) -> Element {
        self.text = Some(text.to_string());
        self
    }

    pub(super) fn child(mut self, child: Element) -> Element {
        self.children.push(Node::Element(child));
        self
    }

    pub(super) fn children(mut self, children: impl IntoIterator<Item = Element>) -> Element {
        self.children.extend(children.into_iter().map(Node::Element));
        self
    }

    /// The text must not have two dashes in a row, which end a comment.
    pub(super) fn comment(mut self, text: impl ToString) -> Element {
        self.children.push(Node::Comment(text.to_string()));
        self
    }

    /// The document whose root this is.
    pub(super) fn document(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out
    }

    fn write(&self, out: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        out.push_str(&format!("{indent}<{}", self.name));
        for (attribute, value) in &self.attributes {
            out.push_str(&format!(" {attribute}='{}'", escaped(value)));
        }
        if let Some(text) = &self.text {
            out.push_str(&format!(">{}</{}>\n", escaped(text), self.name));
        } else if self.children.is_empty() {
            out.push_str("/>\n");
        } else {
            out.push_str(">\n");
            for child in &self.children {
                match child {
                    Node::Element(element) => element.write(out, depth + 1),
                    Node::Comment(text) => out.push_str(&format!("{indent}  <!-- {text} -->\n")),
                }
            }
            out.push_str(&format!("{indent}</{}>\n", self.name));
        }
    }
}

/// A text that means itself, in an element and between single quotes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let nasty = "a<b>&'\"c&amp;]]>";
        let element = Element::new("a").with("b", nasty).child(Element::new("c").text(nasty));
        let text = element.comment("why").document();
        let read = roxmltree::Document::parse(&text).expect("well formed");
        assert_eq!(read.root_element().attribute("b"), Some(nasty));
        let child = read.descendants().find(|node| node.has_tag_name("c")).expect("it is there");
        assert_eq!(child.text(), Some(nasty));
    }
}
