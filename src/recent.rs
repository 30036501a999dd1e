//! The embeddings that were used last.

use std::collections::VecDeque;

use crate::Embeddings;
use crate::embeddings::Source;
use crate::style::StyleSource;

/// Embeddings by what they were made from; the one that was used last comes first.
#[derive(Debug)]
pub(crate) struct Recent {
    kept: VecDeque<Embeddings>,
    most: usize,
}

impl Recent {
    /// Room for `most` of them.
    pub(crate) fn new(most: usize) -> Self {
        Self { kept: VecDeque::new(), most }
    }

    /// Those that were made from `source`.
    pub(crate) fn get(&mut self, source: &Source) -> Option<Embeddings> {
        let place = self.kept.iter().position(|kept| kept.source == *source)?;
        let found = self.kept.remove(place)?;
        let copy = found.shallow_clone();
        self.kept.push_front(found);
        Some(copy)
    }

    /// Keeps embeddings, in the place of those that were used the longest time ago. Of those that were made from pictures, none but the
    /// newest are kept.
    pub(crate) fn put(&mut self, embeddings: &Embeddings) {
        let fits = |kept: &Embeddings| kept.source != embeddings.source && !has_pictures(&kept.source);
        self.kept.retain(fits);
        self.kept.push_front(embeddings.shallow_clone());
        self.kept.truncate(self.most);
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }
}

fn has_pictures(source: &Source) -> bool {
    let references = source.style.as_deref().unwrap_or_default();
    references.iter().any(|reference| matches!(reference.source, StyleSource::Image(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::EncodedText;
    use crate::{Request, StyleImage};

    fn of(request: &Request) -> Embeddings {
        Embeddings {
            source: Source::of(request),
            prompt: EncodedText::default(),
            negative: None,
            further: Vec::new(),
            style: None,
        }
    }

    #[test]
    fn what_was_used_last_is_kept() {
        let mut recent = Recent::new(2);
        let [a, b, c] = ["a", "b", "c"].map(Request::new);
        let there = |recent: &mut Recent, request: &Request| recent.get(&Source::of(request)).is_some();
        recent.put(&of(&a));
        recent.put(&of(&b));
        assert!(there(&mut recent, &a));
        recent.put(&of(&c));
        assert!(!there(&mut recent, &b) && there(&mut recent, &a) && there(&mut recent, &c));
        assert!(!there(&mut recent, &a.clone().negative_prompt("b")), "all of the source counts");
        recent.clear();
        assert!(!there(&mut recent, &a));
        let mut none = Recent::new(0);
        none.put(&of(&a));
        assert!(!there(&mut none, &a));
    }

    /// The pictures of many requests would fill the memory.
    #[test]
    fn pictures_are_kept_once() {
        let mut recent = Recent::new(8);
        let grey = |level| StyleImage::new(image::RgbImage::from_pixel(1, 1, image::Rgb([level; 3]))).unwrap();
        let styled = [1, 2].map(|level| Request::new("a").style(grey(level)));
        recent.put(&of(&Request::new("a")));
        for request in &styled {
            recent.put(&of(request));
        }
        let there =
            [&styled[0], &styled[1], &Request::new("a")].map(|request| recent.get(&Source::of(request)).is_some());
        assert_eq!(there, [false, true, true]);
    }
}
