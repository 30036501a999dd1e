//! Lists of shards in braces, as shells expand them.

use crate::{Error, Result};

/// The most names that one list gives.
const MOST: usize = 1_000_000;

/// The names that a list stands for: `{000..012}` counts, with as many digits as its first number is written with, and `{a,b}` lists.
/// Without braces it is one name.
pub(crate) fn expand(list: &str) -> Result<Vec<String>> {
    let wrong = |reason| Error::Braces { list: list.to_owned(), reason };
    let (mut names, mut rest) = (vec![String::new()], list);
    loop {
        let Some((plain, behind)) = rest.split_once('{') else {
            if rest.contains('}') {
                return Err(wrong("a } without its {"));
            }
            names.iter_mut().for_each(|name| name.push_str(rest));
            return Ok(names);
        };
        let (inside, after) = behind.split_once('}').ok_or_else(|| wrong("a { without its }"))?;
        if plain.contains('}') || inside.contains('{') {
            return Err(wrong("braces stand one behind another, not in each other"));
        }
        let parts = parts(inside).map_err(wrong)?;
        if names.len().saturating_mul(parts.len()) > MOST {
            return Err(wrong("it stands for more than a million shards"));
        }
        names = names.iter().flat_map(|name| parts.iter().map(move |part| format!("{name}{plain}{part}"))).collect();
        rest = after;
    }
}

/// What stands in a pair of braces.
fn parts(inside: &str) -> Result<Vec<String>, &'static str> {
    let Some((first, last)) = inside.split_once("..") else {
        let parts: Vec<String> = inside.split(',').map(str::to_owned).collect();
        return if parts.len() > 1 { Ok(parts) } else { Err("braces hold numbers, {000..012}, or names, {a,b}") };
    };
    let number =
        |text: &str| text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let (Some(from), Some(to)) = (number(first), number(last)) else {
        return Err("{first..last} takes two whole numbers");
    };
    if from > to {
        return Err("the first number of {first..last} is above the last");
    }
    if to - from >= MOST as u64 {
        return Err("it stands for more than a million shards");
    }
    Ok((from..=to).map(|number| format!("{number:0width$}", width = first.len())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_expanded_in_their_order() {
        assert_eq!(expand("d/{08..11}.tar").unwrap(), ["d/08.tar", "d/09.tar", "d/10.tar", "d/11.tar"]);
        assert_eq!(expand("{a,b}-{1..2}.tar").unwrap(), ["a-1.tar", "a-2.tar", "b-1.tar", "b-2.tar"]);
        assert_eq!(expand("one.tar").unwrap(), ["one.tar"]);
        assert_eq!(expand("{99..101}").unwrap(), ["99", "100", "101"]);
    }

    #[test]
    fn lists_that_make_no_sense_are_refused() {
        for list in [
            "{",
            "}",
            "{1..2",
            "a}b{1..2}",
            "{{1..2}}",
            "{}",
            "{a}",
            "{2..1}",
            "{-1..2}",
            "{a..b}",
            "{0..1000000}",
            "{1..}",
        ] {
            assert!(matches!(expand(list), Err(Error::Braces { .. })), "{list}");
        }
        assert!(matches!(expand("{0..9999}{0..9999}"), Err(Error::Braces { .. })));
    }
}
