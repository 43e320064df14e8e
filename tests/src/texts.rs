//! JSON texts that nobody would write, for whatever says that it keeps them byte for byte.

use crate::dice::Dice;

const SPACES: [&str; 6] = [" ", "", "", "\n", "\t", "\r\n"];

const LETTERS: [&str; 12] =
    ["a", "\\u00e9", "é", "\\n", "\\\"", "\\\\", "\\/", "/", "\u{1F42D}", "\\ud83d\\udc2d", "\u{7f}", "\u{202e}"];

/// A JSON text: numbers of any length, keys in any order and twice, escapes, space, nested so deep at most.
#[must_use]
pub fn text(dice: &mut Dice, depth: usize) -> String {
    match if depth == 0 { dice.within(0..6) } else { dice.within(0..11) } {
        0 => one_of(dice, &["null", "true", "false"]).to_owned(),
        1 => dice.roll().cast_signed().to_string(),
        2 => format!("-{}.{}0E+{}", dice.roll(), dice.roll(), dice.within(0..99)),
        3 => {
            // Up to 300 digits: more than the largest number that a `f64` holds are refused at the front door.
            (0..1 + dice.within(0..30)).map(|_| (1_000_000_000 + dice.within(0..999)).to_string()).collect()
        }
        4 | 5 => string(dice),
        6 | 7 => {
            let items: Vec<_> = (0..dice.within(0..4)).map(|_| text(dice, depth - 1)).collect();
            format!("[{}{}]", items.join(","), one_of(dice, &SPACES))
        }
        8 | 9 => {
            let fields: Vec<_> = (0..dice.within(0..4)).map(|_| field(dice, depth - 1)).collect();
            format!("{{{}{}}}", one_of(dice, &SPACES), fields.join(","))
        }
        _ => {
            let levels = usize::try_from(dice.within(0..depth as u64 + 1)).expect("a small number");
            let inner = text(dice, depth - levels);
            format!("{}{inner}{}", "[".repeat(levels), "]".repeat(levels))
        }
    }
}

fn field(dice: &mut Dice, depth: usize) -> String {
    let name = if dice.within(0..3) == 0 { string(dice) } else { "\"same\"".to_owned() };
    format!("{name}{}:{}{}", one_of(dice, &SPACES), one_of(dice, &SPACES), text(dice, depth))
}

fn string(dice: &mut Dice) -> String {
    let letters: String = (0..dice.within(0..8)).map(|_| one_of(dice, &LETTERS)).collect();
    format!("\"{letters}\"")
}

fn one_of(dice: &mut Dice, of: &[&'static str]) -> &'static str {
    of[usize::try_from(dice.within(0..of.len() as u64)).expect("a small number")]
}
