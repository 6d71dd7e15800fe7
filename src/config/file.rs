//! The TOML as written: every key that is there, and every fault in it, at once.
//!
//! Takes: the text of a configuration file. Gives: values by key, each checked where it is read.
//! Errors: `Fault`s, each with line, the text at fault and the remedy; reading goes on after each.
//! Why not serde: it stops at the first fault, and an administrator wants all of them.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::config::values;
use crate::mail::shown::Shown;

type Spanned<T> = toml::Spanned<T>;

/// One fault of a configuration, for the administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where a fault belongs to none.
    pub line: usize,
    /// The line's text.
    pub text: String,
    /// What is wrong, and what to do.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.what),
            line => {
                write!(f, "{}:{line}: {}\n    {}", self.file, self.what, Shown::new(&self.text))
            }
        }
    }
}

/// A file's text, its name, and the faults found in it so far.
#[derive(Debug)]
pub struct Source<'a> {
    /// How the file is called in faults.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
    /// What was found.
    pub faults: Vec<Fault>,
    /// Every key that was asked for, dotted.
    pub asked: BTreeSet<String>,
    /// Every value that was written, dotted key and text.
    pub written: Vec<(String, String)>,
}

impl<'a> Source<'a> {
    /// Nothing found yet.
    pub fn new(name: &'a str, text: &'a str) -> Source<'a> {
        Source { name, text, faults: Vec::new(), asked: BTreeSet::new(), written: Vec::new() }
    }

    /// Notes a fault at a place in the text.
    pub fn fault(&mut self, at: Range<usize>, what: impl Into<String>) {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let text = self.text.lines().nth(line - 1).unwrap_or_default().trim().to_owned();
        self.faults.push(Fault { file: self.name.to_owned(), line, text, what: what.into() });
    }

    /// Notes a fault that belongs to no line.
    pub fn general_fault(&mut self, what: impl Into<String>) {
        let (file, text) = (self.name.to_owned(), String::new());
        self.faults.push(Fault { file, line: 0, text, what: what.into() });
    }
}

/// One table of the file, read key by key. Keys that nobody asked for are faults in the end.
pub struct Section<'t> {
    path: String,
    table: Option<&'t DeTable<'t>>,
    /// Where the table stands, for faults of the table itself.
    pub at: Range<usize>,
    asked: Vec<&'static str>,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Written<T> {
    /// The value.
    pub value: T,
    /// Its place in the text.
    pub at: Range<usize>,
}

impl<'t> Section<'t> {
    /// The root of a parsed file.
    pub fn root(table: &'t Spanned<DeTable<'t>>) -> Section<'t> {
        let at = table.span();
        Section { path: String::new(), table: Some(table.get_ref()), at, asked: Vec::new() }
    }

    /// The dotted name of a key in it.
    pub fn dotted(&self, key: &str) -> String {
        match self.path.is_empty() {
            true => key.to_owned(),
            false => format!("{}.{key}", self.path),
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.push(key);
        let found = self.table?.iter().find(|(name, _)| name.get_ref().as_ref() == key);
        found.map(|(_, value)| value)
    }

    fn take(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
    ) -> Option<&'t Spanned<DeValue<'t>>> {
        let dotted = self.dotted(key);
        let found = self.find(key);
        if let Some(value) = found {
            let text = source.text.get(value.span()).unwrap_or_default().to_owned();
            source.written.push((dotted.clone(), text));
        }
        source.asked.insert(dotted);
        found
    }

    /// A table within this one; an empty one when it is not written.
    pub fn section(&mut self, source: &mut Source<'_>, key: &'static str) -> Section<'t> {
        let path = self.dotted(key);
        let found = self.find(key);
        let table = found.and_then(|value| match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                let what = format!("`{path}` must be a table, not {}", kind(other));
                source.fault(value.span(), what);
                None
            }
        });
        let at = found.map_or(0..0, Spanned::span);
        Section { path, table, at, asked: Vec::new() }
    }

    /// The tables of an array of tables; none when it is not written.
    pub fn sections(&mut self, source: &mut Source<'_>, key: &'static str) -> Vec<Section<'t>> {
        let path = self.dotted(key);
        source.asked.insert(path.clone());
        let Some(value) = self.find(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            source.fault(value.span(), format!("write `[[{path}]]`"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in array.iter() {
            match item.get_ref() {
                DeValue::Table(table) => sections.push(Section {
                    path: path.clone(),
                    table: Some(table),
                    at: item.span(),
                    asked: Vec::new(),
                }),
                other => source
                    .fault(item.span(), format!("`[[{path}]]` is a table, not {}", kind(other))),
            }
        }
        sections
    }

    /// A string, made into a value; `None` when it is not written or wrong.
    pub fn value<T>(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Written<T>> {
        let value = self.take(source, key)?;
        string(source, &self.dotted(key), value, &parse)
    }

    /// A list of strings, each made into a value; what is wrong is left out.
    pub fn list<T>(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<Written<T>>> {
        let value = self.take(source, key)?;
        let dotted = self.dotted(key);
        let DeValue::Array(array) = value.get_ref() else {
            let what =
                format!("`{dotted}` is a list: write [\"…\"], not {}", kind(value.get_ref()));
            source.fault(value.span(), what);
            return None;
        };
        Some(array.iter().filter_map(|item| string(source, &dotted, item, &parse)).collect())
    }

    /// The same, of which there must be one at least when it is written.
    pub fn some<T>(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<Written<T>>> {
        let before = source.faults.len();
        let found = self.list(source, key, parse)?;
        self.needs_one(source, key, &found, before);
        Some(found)
    }

    /// A list that is written must not be empty; `before`: how many faults there were before it.
    pub fn needs_one<T>(&self, source: &mut Source<'_>, key: &str, found: &[T], before: usize) {
        if found.is_empty() && before == source.faults.len() {
            let what =
                format!("`{}` is empty: name one at least, or take it out", self.dotted(key));
            source.fault(self.at.clone(), what);
        }
    }

    /// A string of the list of a key, made into a value.
    pub fn item<T>(
        &self,
        source: &mut Source<'_>,
        key: &str,
        text: &Written<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Written<T>> {
        parsed(source, &self.dotted(key), &text.value, text.at.clone(), &parse)
    }

    /// The items of a list that may hold strings and tables: each string, and each table as a
    /// section. `None` when it is not written or no list.
    pub fn mixed(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
    ) -> Option<Vec<Result<Written<String>, Section<'t>>>> {
        let value = self.take(source, key)?;
        let path = self.dotted(key);
        let DeValue::Array(array) = value.get_ref() else {
            source.fault(value.span(), format!("`{path}` is a list"));
            return None;
        };
        let mut items = Vec::new();
        for item in array.iter() {
            match item.get_ref() {
                DeValue::String(text) => {
                    items.push(Ok(Written { value: text.to_string(), at: item.span() }));
                }
                DeValue::Table(table) => items.push(Err(Section {
                    path: path.clone(),
                    table: Some(table),
                    at: item.span(),
                    asked: Vec::new(),
                })),
                other => source.fault(
                    item.span(),
                    format!("`{path}` holds strings and tables, not {}", kind(other)),
                ),
            }
        }
        Some(items)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, source: &mut Source<'_>, key: &'static str) -> Option<Written<bool>> {
        let value = self.take(source, key)?;
        match value.get_ref() {
            DeValue::Boolean(boolean) => Some(Written { value: *boolean, at: value.span() }),
            other => {
                let what = format!("`{}` is true or false, not {}", self.dotted(key), kind(other));
                source.fault(value.span(), what);
                None
            }
        }
    }

    /// A whole number within bounds.
    pub fn number(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Option<Written<u64>> {
        let value = self.take(source, key)?;
        let number = match value.get_ref() {
            DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            _ => None,
        };
        match number.filter(|number| bounds.contains(number)) {
            Some(number) => Some(Written { value: number, at: value.span() }),
            None => {
                let (least, most) = (bounds.start(), bounds.end());
                let what = format!("`{}` is a number from {least} to {most}", self.dotted(key));
                source.fault(value.span(), what);
                None
            }
        }
    }

    /// A duration within bounds.
    pub fn duration(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        bounds: std::ops::RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let found = self.value(source, key, values::duration)?;
        self.within(source, key, found, &bounds, values::show_duration)
    }

    /// A size in bytes within bounds.
    pub fn size(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let found = self.value(source, key, values::size)?;
        self.within(source, key, found, &bounds, values::show_size)
    }

    fn within<T: PartialOrd>(
        &self,
        source: &mut Source<'_>,
        key: &str,
        found: Written<T>,
        bounds: &std::ops::RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        if bounds.contains(&found.value) {
            return Some(found.value);
        }
        let (least, most) = (show(bounds.start()), show(bounds.end()));
        source.fault(found.at, format!("`{}` must be from {least} to {most}", self.dotted(key)));
        None
    }

    /// Ends the section: every key that was not asked for is a fault.
    pub fn end(self, source: &mut Source<'_>) {
        for (name, _) in self.table.into_iter().flatten() {
            let key = name.get_ref().as_ref();
            if self.asked.contains(&key) {
                continue;
            }
            let near = self.asked.iter().min_by_key(|known| distance(known, key));
            let near = near.filter(|known| distance(known, key) <= 2);
            let place = match self.path.is_empty() {
                true => "at the top".to_owned(),
                false => format!("in `[{}]`", self.path),
            };
            let remedy = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known there: {}", self.asked.join(", ")),
            };
            source.fault(
                name.span(),
                format!("unknown key `{}` {place}; {remedy}", Shown::at_most(key, 60)),
            );
        }
    }
}

fn string<T>(
    source: &mut Source<'_>,
    dotted: &str,
    value: &Spanned<DeValue<'_>>,
    parse: &impl Fn(&str) -> Result<T, String>,
) -> Option<Written<T>> {
    let DeValue::String(text) = value.get_ref() else {
        let what = format!("`{dotted}` is a string in quotes, not {}", kind(value.get_ref()));
        source.fault(value.span(), what);
        return None;
    };
    parsed(source, dotted, text, value.span(), parse)
}

fn parsed<T>(
    source: &mut Source<'_>,
    dotted: &str,
    text: &str,
    at: Range<usize>,
    parse: &impl Fn(&str) -> Result<T, String>,
) -> Option<Written<T>> {
    match parse(text) {
        Ok(value) => Some(Written { value, at }),
        Err(what) => {
            let text = Shown::at_most(text, 60);
            source.fault(at, format!("`{dotted}`: {what}; found {:?}", text.as_str()));
            None
        }
    }
}

fn distance(known: &str, written: &str) -> usize {
    let plain = |key: &str| key.replace('-', "_").to_ascii_lowercase();
    strsim::damerau_levenshtein(&plain(known), &plain(written))
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        let mut source = Source::new("a.toml", text);
        let table = DeTable::parse(text).unwrap();
        let mut root = Section::root(&table);
        root.value(&mut source, "mode", |text| match text {
            "observe" => Ok(()),
            _ => Err("write \"observe\"".to_owned()),
        });
        let mut inner = root.section(&mut source, "outbound");
        inner.list(&mut source, "listen", |text| Ok(text.to_owned()));
        inner.number(&mut source, "sessions", 1..=10);
        inner.size(&mut source, "inspect_max", 10..=100);
        inner.boolean(&mut source, "flag");
        inner.end(&mut source);
        root.end(&mut source);
        source.faults.iter().map(|fault| format!("{}: {}", fault.line, fault.what)).collect()
    }

    #[test]
    fn every_fault_is_found_at_once_with_its_line() {
        let faults = read(
            "mode = \"enforced\"\nmood = 1\n[outbound]\nlisten = \"x\"\nsessions = 11\n\
             inspect_max = \"5B\"\nflag = \"yes\"\nlistens = []\nwhat = 1\n",
        );
        assert_eq!(
            faults,
            [
                "1: `mode`: write \"observe\"; found \"enforced\"",
                "4: `outbound.listen` is a list: write [\"…\"], not a string",
                "5: `outbound.sessions` is a number from 1 to 10",
                "6: `outbound.inspect_max` must be from 10B to 100B",
                "7: `outbound.flag` is true or false, not a string",
                "8: unknown key `listens` in `[outbound]`; did you mean `listen`?",
                "9: unknown key `what` in `[outbound]`; known there: listen, sessions, inspect_max, flag",
                "2: unknown key `mood` at the top; did you mean `mode`?",
            ]
        );
        assert!(read("mode = \"observe\"\n[outbound]\nsessions = 10\n").is_empty());
        assert_eq!(read("outbound = 1\n"), ["1: `outbound` must be a table, not a number"]);
    }
}
