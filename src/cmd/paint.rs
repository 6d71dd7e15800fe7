//! Colour, on terminals only.

use std::io::IsTerminal;

/// Paints words when the output is a terminal and `NO_COLOR` is not set.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    colour: bool,
}

/// What a colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// It goes out.
    Good,
    /// It is held.
    Held,
    /// It waits.
    Waits,
    /// A heading.
    Strong,
    /// Beside the point.
    Faint,
}

impl Paint {
    /// For standard output.
    pub fn stdout() -> Paint {
        Paint::on(&std::io::stdout())
    }

    /// For another output.
    pub fn on(output: &impl IsTerminal) -> Paint {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Paint { colour: output.is_terminal() && !plain }
    }

    /// Never any colour.
    pub fn plain() -> Paint {
        Paint { colour: false }
    }

    /// Whether it paints: the output is a terminal.
    pub fn is_terminal(self) -> bool {
        self.colour
    }

    /// The words in this tone.
    pub fn paint(self, tone: Tone, words: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Held => "31",
            Tone::Waits => "33",
            Tone::Strong => "1",
            Tone::Faint => "2",
        };
        match self.colour {
            true => format!("\x1b[{code}m{words}\x1b[0m"),
            false => words.to_owned(),
        }
    }
}
