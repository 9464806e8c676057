//! The value of an option: `driver,key=value,...` or JSON.

use serde_json::Value;
use std::collections::BTreeMap;

/// The keys of one option that are read: a disk whose 1,024 queues are spread over iothreads has some 1,100.
const KEYS_MAX: usize = 1 << 12;

/// Nodes within nodes have keys of some 100 bytes.
const KEY_BYTES_MAX: usize = 512;

/// Keys and values; those of nested objects and lists are joined by dots, as QEMU writes them too
/// (`cache.direct`, `iothread-vq-mapping.0.iothread`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Properties(BTreeMap<String, String>);

impl Properties {
    /// `implied` is the key of a first value that stands alone.
    pub(super) fn parse(value: &str, implied: &str) -> Properties {
        Properties::of_json(value).unwrap_or_else(|| {
            let mut properties = Properties::default();
            properties.split(value, implied);
            properties
        })
    }

    /// What a JSON object has; `None` if it is none.
    pub(super) fn of_json(text: &str) -> Option<Properties> {
        let mut properties = Properties::default();
        let object = serde_json::from_str::<Value>(text).ok().filter(Value::is_object)?;
        properties.flatten("", &object);
        Some(properties)
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// How a switch stands, if it is told; QEMU takes all of these words (`qapi_bool_parse`).
    pub(super) fn switch(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            "on" | "yes" | "true" | "y" => Some(true),
            "off" | "no" | "false" | "n" => Some(false),
            _ => None,
        }
    }

    /// Whether a switch is on.
    pub(super) fn is_on(&self, key: &str) -> bool {
        self.switch(key) == Some(true)
    }

    /// Whether there is any key below this one.
    pub(super) fn has_below(&self, key: &str) -> bool {
        let prefix = format!("{key}.");
        self.0.range(prefix.clone()..).next().is_some_and(|(key, _)| key.starts_with(&prefix))
    }

    /// What is below a key.
    pub(super) fn below(&self, key: &str) -> Properties {
        let prefix = format!("{key}.");
        let inner = |(key, value): (&String, &String)| {
            Some((key.strip_prefix(&prefix)?.to_owned(), value.clone()))
        };
        Properties(self.0.range(prefix.clone()..).map_while(inner).collect())
    }

    /// What stands before this key wherever it is, dot included; nothing where it stands at the top.
    pub(super) fn prefixes_of(&self, key: &str) -> Vec<String> {
        let is_whole = |prefix: &&str| prefix.is_empty() || prefix.ends_with('.');
        let prefixes = self.0.keys().filter_map(|name| name.strip_suffix(key));
        prefixes.filter(is_whole).map(str::to_owned).collect()
    }

    pub(super) fn set(&mut self, key: &str, value: &str) {
        self.put(key, value);
    }

    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    /// Takes what others say where these do not.
    pub(super) fn add_defaults(&mut self, others: &Properties) {
        for (key, value) in &others.0 {
            self.0.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }

    /// The values of all keys that `wanted` wants, in the order of the keys.
    pub(super) fn all(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| wanted(key)).map(|(_, value)| value.as_str())
    }

    fn flatten(&mut self, prefix: &str, value: &Value) {
        let under = |key: &str| {
            if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
        };
        if prefix.len() > KEY_BYTES_MAX {
            return;
        }
        match value {
            Value::Object(map) => {
                map.iter().for_each(|(key, value)| self.flatten(&under(key), value));
            }
            Value::Array(list) => {
                let items = list.iter().enumerate();
                items.for_each(|(place, item)| self.flatten(&under(&place.to_string()), item));
            }
            Value::Bool(is_on) => self.put(prefix, if *is_on { "on" } else { "off" }),
            Value::String(text) => self.put(prefix, text),
            Value::Number(number) => self.put(prefix, &number.to_string()),
            Value::Null => {}
        }
    }

    fn split(&mut self, value: &str, implied: &str) {
        for (place, part) in parts(value).iter().enumerate() {
            match part.split_once('=') {
                Some((key, value)) => self.put(key, value),
                None if place == 0 => self.put(implied, part),
                // A key alone is a switch that is on, or off with `no` before it (qemu: util/qemu-option.c,
                // `get_opt_name_value`).
                None => {
                    self.put(part, "on");
                    if let Some(key) = part.strip_prefix("no") {
                        self.put(key, "off");
                    }
                }
            }
        }
    }

    /// What has more keys, or longer ones, than any that QEMU takes is read so far.
    fn put(&mut self, key: &str, value: &str) {
        if key.len() <= KEY_BYTES_MAX && self.0.len() < KEYS_MAX {
            self.0.insert(key.to_owned(), value.to_owned());
        }
    }
}

/// Splits at commas; two of them stand for one that is meant.
fn parts(value: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut letters = value.chars().peekable();
    while let Some(letter) = letters.next() {
        let is_end = letter == ',' && letters.next_if_eq(&',').is_none();
        match parts.last_mut() {
            Some(part) if !is_end => part.push(letter),
            _ => parts.push(String::new()),
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms_say_the_same() {
        let short =
            Properties::parse("raw,node-name=d0,cache.direct=on,file=a,,b,read-only", "driver");
        let json = Properties::parse(
            r#"{"driver":"raw","node-name":"d0","cache":{"direct":true},"file":"a,b","read-only":true}"#,
            "driver",
        );
        assert_eq!(short, json);
        assert_eq!((short.get("driver"), short.get("file")), (Some("raw"), Some("a,b")));
        assert!(short.is_on("cache.direct") && short.is_on("read-only") && !short.is_on("driver"));
    }

    #[test]
    fn lists_have_numbers() {
        let text = r#"{"iothread-vq-mapping":[{"iothread":"a","vqs":[0,1]},{"iothread":"b"}]}"#;
        let mapping = Properties::parse(text, "driver");
        let iothreads: Vec<&str> = mapping.all(|key| key.ends_with(".iothread")).collect();
        assert_eq!(iothreads, ["a", "b"]);
        assert_eq!(mapping.get("iothread-vq-mapping.0.vqs.1"), Some("1"));
    }

    proptest! {
        /// A command line is somebody else's.
        #[test]
        fn any_text_is_parsed(text: String) {
            let _ = Properties::parse(&text, "driver");
        }
    }
}
