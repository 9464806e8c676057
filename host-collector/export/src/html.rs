//! A page of HTML as one file: a template, style and script, and the data as JSON, of which nothing is markup.
//!
//! What all pages share is in `html/`: how they look, and what they are drawn with.

const TEMPLATE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = concat!(
    include_str!("html/draw.js"),
    include_str!("html/table.js"),
    include_str!("html/sections.js")
);

/// What pages of one kind have beside what all share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// What prints the same as text.
    pub(crate) as_text: &'static str,
    /// Of its own elements.
    pub(crate) style: &'static str,
    /// Draws the page from the JSON in the element `data`.
    pub(crate) script: &'static str,
}

impl Kind {
    /// The page with this title and these data, as JSON.
    pub(crate) fn page(&self, title: &str, json: &str) -> String {
        let (style, script) = ([STYLE, self.style].concat(), [SCRIPT, self.script].concat());
        let places = [
            ("title", &*markup(title)),
            ("style", &style),
            ("as_text", self.as_text),
            ("data", &embedded(json)),
            ("script", &script),
        ];
        fill(TEMPLATE, &places)
    }
}

/// The template with these in the places of `{{name}}`. What is put in is not looked at again.
fn fill(template: &str, places: &[(&str, &str)]) -> String {
    let mut page = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let of_it = |(name, _): &&(&str, &str)| {
            after.strip_prefix(name).is_some_and(|after| after.starts_with("}}"))
        };
        match places.iter().find(of_it) {
            Some((name, text)) => {
                page.push_str(text);
                rest = &after[name.len() + 2..];
            }
            None => {
                page.push_str("{{");
                rest = after;
            }
        }
    }
    page.push_str(rest);
    page
}

/// A text as HTML.
fn markup(text: &str) -> String {
    let mut html = String::new();
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            other => html.push(other),
        }
    }
    html
}

/// JSON that is the same to its reader, and in which no text can end the script that it is in, or begin a comment
/// (WHATWG HTML, 4.12.1.3, "Restrictions for contents of script elements"). These characters are in texts only.
fn embedded(json: &str) -> String {
    let mut embedded = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                embedded.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            other => embedded.push(other),
        }
    }
    embedded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_not_looked_at_again() {
        let places = [("a", "{{b}}"), ("b", "B")];
        assert_eq!(fill("{{a}} {{b}} {{c}} {{", &places), "{{b}} B {{c}} {{");
    }

    #[test]
    fn each_marker_is_in_the_template_once() {
        for marker in ["{{title}}", "{{style}}", "{{as_text}}", "{{data}}", "{{script}}"] {
            assert_eq!(TEMPLATE.matches(marker).count(), 1, "{marker}");
        }
    }

    #[test]
    fn no_text_ends_the_script_that_it_is_in() {
        let texts = ["</script><script>alert(1)</script>", "<!--", "]]>", "\u{2028}\u{2029}&amp;"];
        let json = serde_json::to_string(&texts).unwrap();
        let embedded = embedded(&json);
        assert!(!embedded.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{embedded}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&embedded).unwrap(), texts);
        assert_eq!(markup("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
