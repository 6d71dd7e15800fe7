//! The measured figures in `docs/what-can-be-known.md` and `docs/reference/openspf.md`.
//!
//! Goal: what the documents say of reading and of SPF is what is measured. Method: each table is
//! made anew and compared. `UPDATE=1 cargo test --test it known` writes them. A table that differs
//! is an error in CI (`CI=…` or `REPLYGUARD_NO_SKIP=1`), and otherwise said. Where the corpus is
//! missing: SKIPPED, because it is not part of the project.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::corpus::{answer_classes, case, rows};
use super::spf::{Compared, suite};
use crate::skipped::is_strict;

const PAGE: &str = "docs/what-can-be-known.md";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Compares the text between `<!-- NAME -->` and `<!-- end of NAME -->` with `made`, or writes it.
fn compare(document: &str, name: &str, made: &str) {
    let text = fs::read_to_string(path(document)).unwrap();
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let start = text.find(&begin).unwrap_or_else(|| panic!("{document}: no {begin}")) + begin.len();
    let stop = text.find(&end).unwrap_or_else(|| panic!("{document}: no {end}"));
    let wanted = format!("\n{}\n\n", made.trim());
    if text[start..stop] == wanted {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        let text = [&text[..start], &wanted, &text[stop..]].concat();
        fs::write(path(document), text).unwrap();
        return;
    }
    println!("{document}: \"{name}\" is not what is measured; UPDATE=1 writes it:\n{wanted}");
    assert!(!is_strict(), "{document}: \"{name}\" differs");
}

/// A table in Markdown; the first row is its head.
fn table(rows: &[Vec<String>]) -> String {
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        writeln!(out, "| {} |", cells.join(" | ")).unwrap();
        if index == 0 {
            writeln!(out, "|{}", "---|".repeat(row.len())).unwrap();
        }
    }
    out
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn the_confusion_matrix_is_what_the_page_says() {
    let rows = rows();
    if rows.is_empty() {
        return;
    }
    let mut matrix: BTreeMap<(String, String), usize> = BTreeMap::new();
    let (mut answers, mut missed, mut right, mut alarms) = (0, 0, 0, 0);
    for row in &rows {
        let case = case(row.bytes.clone());
        let is_answer = case.class.guarded() != replyguard::judge::classify::Guarded::No;
        match answer_classes(&row.label) {
            Some(classes) => {
                answers += 1;
                missed += usize::from(!is_answer);
                right += usize::from(classes.contains(&case.class.as_str()));
            }
            None => alarms += usize::from(is_answer),
        }
        *matrix.entry((row.label.clone(), case.class.to_string())).or_default() += 1;
    }
    let labels: BTreeSet<&String> = matrix.keys().map(|(label, _)| label).collect();
    let classes: BTreeSet<&String> = matrix.keys().map(|(_, class)| class).collect();
    let mut shown = vec![vec!["labelled as".to_owned(), "messages".to_owned()]];
    shown[0].extend(classes.iter().map(|class| format!("`{class}`")));
    for label in labels {
        let count = |class: &String| matrix.get(&(label.clone(), class.clone())).copied();
        let all: usize = classes.iter().filter_map(|class| count(class)).sum();
        let cells =
            classes.iter().map(|class| count(class).map_or(String::new(), |n| n.to_string()));
        shown.push([label.clone(), all.to_string()].into_iter().chain(cells).collect());
    }
    let all = rows.len();
    let made = format!(
        "{}\n{answers} of the {all} messages answer another one: {missed} of these are missed \
         (delivered unjudged), {right} get the right class. Of the other {}, {alarms} are taken for \
         an answer.",
        table(&shown),
        all - answers
    );
    compare(PAGE, "confusion matrix", &made);
}

/// What a bounce of the corpus returns of its original, in words.
fn kind(found_as: &str) -> &'static str {
    match found_as {
        "message/rfc822" => "the whole message, as an attachment",
        "text/rfc822-headers" => "its header, as an attachment",
        "text-block" => "a quotation in the text",
        _ => "nothing that can be read",
    }
}

#[test]
fn recovery_of_originals_is_what_the_page_says() {
    let rows = rows();
    if rows.is_empty() {
        return;
    }
    #[derive(Default)]
    struct Found {
        bounces: usize,
        named: usize,
        found: usize,
        wrong: usize,
    }
    let mut kinds: BTreeMap<&str, Found> = BTreeMap::new();
    for row in rows.into_iter().filter(|row| row.label == "bounce") {
        let of = kinds.entry(kind(&row.found_as)).or_default();
        let original = case(row.bytes).original;
        of.bounces += 1;
        if !row.message_id.is_empty() {
            of.named += 1;
            let id = original.keys.iter().find_map(|key| match key {
                replyguard::judge::original::Key::MessageId { id, .. } => Some(id.clone()),
                _ => None,
            });
            of.found += usize::from(id.as_deref() == Some(row.message_id.as_str()));
            of.wrong += usize::from(id.is_some_and(|id| id != row.message_id));
        }
    }
    let head = ["a bounce that returns", "bounces", "with a Message-ID", "found", "wrong"];
    let mut shown = vec![words(&head)];
    for (kind, of) in &kinds {
        let numbers = [of.bounces, of.named, of.found, of.wrong];
        let cells = numbers.iter().map(ToString::to_string);
        shown.push([(*kind).to_owned()].into_iter().chain(cells).collect());
    }
    compare(PAGE, "recovery", &table(&shown));
}

/// Goal: which rule decided each case of the openspf suite, and what mail-auth alone would say.
#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_the_spf_suite_is_what_is_measured() {
    if std::env::var_os("UPDATE").is_none() && !is_strict() {
        println!("not compared: takes CI=1 or UPDATE=1");
        return;
    }
    let Some(cases) = suite(Compared::WithMailAuth).await else { return };
    let (mut text, mut scenario) = (String::new(), String::new());
    let (mut right, mut theirs, mut false_passes) = (0, 0, 0);
    for case in &cases {
        if case.scenario != scenario {
            scenario.clone_from(&case.scenario);
            let head = words(&["case", "wanted", "found", "decided by", "mail-auth alone"]);
            write!(text, "\n## {scenario}\n\n{}", table(&[head])).unwrap();
        }
        let alone = case.alone.as_deref().unwrap_or_default();
        let alone_is_right = case.wanted.iter().any(|wanted| wanted == alone);
        right += usize::from(case.is_right());
        theirs += usize::from(alone_is_right);
        false_passes += usize::from(alone == "pass" && !alone_is_right);
        let found =
            if case.is_right() { case.found.clone() } else { format!("**{}**", case.found) };
        let alone = if alone_is_right { String::new() } else { format!("**{alone}**") };
        let row = vec![
            format!("`{}`", case.name),
            case.wanted.join(" or "),
            found,
            if case.decided_by.is_empty() {
                String::new()
            } else {
                format!("`{}`", case.decided_by)
            },
            alone,
        ];
        let rows = table(&[row]);
        text.push_str(rows.lines().next().unwrap_or_default());
        text.push('\n');
    }
    compare("docs/reference/openspf.md", "table", &text);
    let made = format!(
        "{right} of {} as the suite wants them, no pass that should be none. mail-auth alone has \
         {theirs} of them, with {false_passes} passes that should be none.",
        cases.len()
    );
    compare(PAGE, "openspf", &made);
}
