//! The normalisation of a SentencePiece model: a table of rewritings, compiled into a trie.

/// Rewritings of the longest match at each place, as SentencePiece applies them (Kudo & Richardson 2018, §3.2, "character
/// normalization"). T5's is NFKC with control characters removed and all white space made into spaces.
///
/// The crate `tokenizers` reads such tables, too. But it divides a text into grapheme clusters first, which gives other tokens
/// for some accents and scripts.
#[derive(Debug, Default)]
pub(super) struct Charsmap {
    /// A double array (Aoe 1989) in the bits of darts-clone.
    units: Vec<u32>,
    /// The replacements, each ended by a zero byte.
    replacements: String,
}

/// The longest replacement in bytes. Unicode's longest normalised form of a character has 18 characters.
const LONGEST: usize = 256;

impl Charsmap {
    /// Reads a compiled table: the length of the trie in bytes, the trie, the replacements. An empty one rewrites nothing.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or("its normalisation table is cut short")?;
        let length = u32::from_le_bytes(*length) as usize;
        let (trie, replacements) =
            rest.split_at_checked(length).ok_or("its normalisation table is shorter than it says")?;
        let units = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let replacements =
            std::str::from_utf8(replacements).map_err(|_| "its normalisation table is not UTF-8")?.to_owned();
        if replacements.split('\0').any(|replacement| replacement.len() > LONGEST) {
            return Err("its normalisation table makes more than 256 bytes of a match");
        }
        Ok(Self { units, replacements })
    }

    /// The longest match at the start of `text`: its number of bytes, and what they become.
    fn rewrite<'a>(&'a self, text: &'a str) -> Option<(usize, &'a str)> {
        let unit = |position: u32| self.units.get(position as usize).copied();
        let offset = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let mut position = offset(unit(0)?);
        let mut longest = None;
        for (index, byte) in text.bytes().enumerate() {
            position ^= u32::from(byte);
            let Some(node) = unit(position).filter(|node| node & (1 << 31 | 0xff) == u32::from(byte)) else { break };
            position ^= offset(node);
            if node & (1 << 8) != 0 {
                longest = unit(position).map(|leaf| (index + 1, (leaf & !(1 << 31)) as usize));
            }
        }
        let (bytes, start) = longest?;
        let replacement = self.replacements.get(start..)?.split('\0').next()?;
        // A damaged table could end a match inside a character.
        text.is_char_boundary(bytes).then_some((bytes, replacement))
    }

    /// The characters of the normalised text, each with the characters of `text` that it came from.
    pub(super) fn apply(&self, text: &str) -> Vec<(char, std::ops::Range<usize>)> {
        let mut normalised = Vec::with_capacity(text.len());
        let (mut rest, mut index) = (text, 0);
        while let Some(first) = rest.chars().next() {
            let (bytes, replacement) = self.rewrite(rest).unwrap_or((first.len_utf8(), &rest[..first.len_utf8()]));
            let (matched, following) = rest.split_at(bytes);
            let range = index..index + matched.chars().count();
            normalised.extend(replacement.chars().map(|c| (c, range.clone())));
            (rest, index) = (following, range.end);
        }
        normalised
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with the one rewriting of "a" to "bc".
    fn table() -> Vec<u8> {
        let mut units = vec![0_u32; 256];
        units[0] = 1 << 10;
        let node = 1 ^ u32::from(b'a');
        units[node as usize] = 2 << 10 | 1 << 8 | u32::from(b'a');
        units[(node ^ 2) as usize] = 1 << 31 | 1;
        let mut bytes = (4 * units.len() as u32).to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(b"\0bc\0");
        bytes
    }

    #[test]
    fn a_rewriting_keeps_the_place_it_came_from() {
        let table = Charsmap::parse(&table()).unwrap();
        assert_eq!(table.apply("éaz"), [('é', 0..1), ('b', 1..2), ('c', 1..2), ('z', 2..3)]);
        assert_eq!(Charsmap::parse(&[]).unwrap().apply("a"), [('a', 0..1)]);
    }

    /// Each character of a text could become as many as the file has.
    #[test]
    fn a_replacement_without_end_is_an_error() {
        let mut whole = table();
        whole.splice(whole.len() - 4.., format!("\0{}\0", "b".repeat(LONGEST)).into_bytes());
        assert_eq!(Charsmap::parse(&whole).unwrap().apply("a").len(), LONGEST);
        whole.insert(whole.len() - 1, b'b');
        assert!(Charsmap::parse(&whole).is_err());
    }

    #[test]
    fn damaged_tables_are_errors_or_rewrite_nothing() {
        let whole = table();
        assert!(Charsmap::parse(&whole[..3]).is_err());
        assert!(Charsmap::parse(&whole[..500]).is_err());
        // Links beyond the end of the trie and replacements beyond the end of the text.
        for unit in [0_usize, 1 ^ usize::from(b'a'), 1 ^ usize::from(b'a') ^ 2] {
            let mut bytes = whole.clone();
            bytes[4 + 4 * unit + 1..4 + 4 * unit + 4].fill(0xfd);
            assert!(Charsmap::parse(&bytes).unwrap().apply("aéa").len() >= 3);
        }
    }
}
