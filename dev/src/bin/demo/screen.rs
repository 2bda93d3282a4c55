//! How the demo looks: narrow, aligned, coloured only at a terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Where lines go, and whether they may have colours.
pub(crate) struct Screen {
    colours: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colours: std::io::stdout().is_terminal() && !plain,
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub(crate) fn title(&self, text: &str) {
        println!("\n{}\n", self.paint("1", text));
    }

    /// A step that is done, with what came of it and how long it took.
    pub(crate) fn step(&self, name: &str, result: &str, start: Instant) {
        let took = self.paint("2", &seconds(start.elapsed()));
        println!("  {} {name:<22} {result:<46} {took}", self.paint("32", "✓"));
    }

    /// A heading inside the summary.
    pub(crate) fn section(&self, name: &str) {
        println!("\n  {}", self.paint("2", name));
    }

    /// A figure of the summary.
    pub(crate) fn figure(&self, name: &str, value: &str) {
        println!("  {} {value}", self.paint("1", &format!("{name:<24}")));
    }

    /// A figure that was checked.
    pub(crate) fn checked(&self, name: &str, value: &str, sound: bool) {
        let mark = if sound {
            self.paint("32", "✓")
        } else {
            self.paint("31", "✗")
        };
        self.figure(name, &format!("{value} {mark}"));
    }

    /// The last word: sound, or what is not.
    pub(crate) fn verdict(&self, problems: &[String]) {
        println!();
        if problems.is_empty() {
            let sound = "every row is accounted for, and each event was published once";
            println!("  {} {}", self.paint("32", "✓"), self.paint("1", sound));
        }
        for problem in problems {
            println!("  {} {}", self.paint("31", "✗"), self.paint("1", problem));
        }
    }

    /// Something quoted, such as a line of an answer.
    pub(crate) fn quote(&self, text: &str) {
        println!("    {}", self.paint("36", text));
    }

    pub(crate) fn note(&self, text: &str) {
        println!("  {}", self.paint("2", text));
    }
}

fn seconds(time: Duration) -> String {
    format!("{:>5.1} s", time.as_secs_f64())
}

/// A number with a comma after each three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn digits_come_in_groups_of_three() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
