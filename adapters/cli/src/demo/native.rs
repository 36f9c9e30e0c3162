//! The first half of the demonstration: one source compiled in many ways on this computer, and the answers side by side.

use std::collections::BTreeSet;
use std::path::Path;

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use super::variants::{self, Answer, Skipped, Variant};

/// What each variant answered, or why it was not asked.
pub(crate) struct Answers {
    rows: Vec<(Variant, Result<Answer, Skipped>)>,
}

impl Answers {
    /// Compiles and runs all variants in `dir`.
    pub(crate) fn collect(dir: &Path) -> Self {
        let ask = |(at, variant): (usize, &Variant)| (*variant, variant.answer(dir, &format!("variant-{at}")));
        Self { rows: variants::ALL.iter().enumerate().map(ask).collect() }
    }

    /// The different values, in order.
    pub(crate) fn values(&self) -> BTreeSet<&str> {
        self.rows.iter().filter_map(|(_, answer)| answer.as_ref().ok()).map(|answer| answer.value.as_str()).collect()
    }

    /// As a table like the paper's; values of `paper` are marked.
    pub(crate) fn table(&self, paper: &str) -> String {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        table.set_header(["compiler", "flags", "pi after 1000 terms", "error", "in hexadecimal"]);
        for (variant, answer) in &self.rows {
            if let Ok(answer) = answer {
                let mark = if answer.value == paper { " *" } else { "" };
                let value = format!("{}{mark}", answer.value);
                let compiler = variant.compiler.to_string();
                table.add_row([&compiler, variant.flags, &value, &answer.error, &answer.hex]);
            }
        }
        table.to_string()
    }

    /// One line for each reason, with the variants that it kept from being run.
    pub(crate) fn skipped(&self) -> Vec<String> {
        let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
        for (variant, answer) in &self.rows {
            let Err(Skipped(why)) = answer else { continue };
            let name = format!("{} {}", variant.compiler, variant.flags);
            match reasons.iter_mut().find(|(reason, _)| reason == why) {
                Some((_, names)) => names.push(name),
                None => reasons.push((why, vec![name])),
            }
        }
        reasons.into_iter().map(|(why, names)| format!("skipped {}: {why}", names.join("; "))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::variants::Compiler;
    use super::*;

    fn answers() -> Answers {
        let variant = |compiler, flags| Variant { compiler, flags };
        let answer = |value: &str| Answer { value: value.into(), error: "0.25".into(), hex: "0x1p+1".into() };
        let skipped = || Err(Skipped("no wine (install it)".into()));
        Answers {
            rows: vec![
                (variant(Compiler::Gcc, "-O0"), Ok(answer("3.5"))),
                (variant(Compiler::Gcc, "-O3"), Ok(answer("3.25"))),
                (variant(Compiler::Clang, "-O3"), Ok(answer("3.5"))),
                (variant(Compiler::MinGw32, "-O0"), skipped()),
                (variant(Compiler::MinGw32, "-O3"), skipped()),
            ],
        }
    }

    #[test]
    fn the_table_has_the_answers_and_marks_the_papers() {
        insta::assert_snapshot!(answers().table("3.25"));
    }

    #[test]
    fn what_was_skipped_is_named_with_the_reason() {
        insta::assert_snapshot!(answers().skipped().join("\n"));
    }

    #[test]
    fn equal_values_count_once() {
        assert_eq!(answers().values(), BTreeSet::from(["3.25", "3.5"]));
    }
}
