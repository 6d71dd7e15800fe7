//! Pictures out of characters: bars, and what happened when.

/// A bar of `width` places for `part` of `whole`; at least a sliver when there is any.
pub fn bar(part: usize, whole: usize, width: usize) -> String {
    let eighths = (part * width * 8).checked_div(whole).unwrap_or(0).min(width * 8);
    let eighths = if part > 0 { eighths.max(1) } else { 0 };
    let last = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(eighths % 8).copied().unwrap_or("");
    format!("{}{last}", "█".repeat(eighths / 8))
}

/// One column for each count, as high as `rows` for the greatest; top row first.
pub fn columns(counts: &[usize], rows: usize) -> Vec<String> {
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let levels = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    let row = |row: usize| {
        let floor = (rows - 1 - row) * 8;
        let cell = |count: &usize| {
            let level = (count * rows * 8).div_ceil(most).saturating_sub(floor);
            match level {
                0 => " ",
                level => levels.get(level.min(8) - 1).copied().unwrap_or("█"),
            }
        };
        counts.iter().map(cell).collect()
    };
    (0..rows).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_shares_and_slivers() {
        assert_eq!(bar(4, 8, 4), "██");
        assert_eq!(bar(1, 1000, 10), "▏");
        assert_eq!(bar(0, 10, 10), "");
        assert_eq!(bar(0, 0, 10), "");
        assert_eq!(bar(20, 10, 3), "███");
    }

    #[test]
    fn columns_are_as_high_as_their_counts() {
        assert_eq!(columns(&[0, 4, 8], 2), ["  █", " ██"]);
        assert_eq!(columns(&[], 1), [""]);
    }
}
