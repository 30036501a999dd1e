//! Small tokenizers in the published file formats: those of the shipped model, or new ones trained on captions.

use std::path::Path;

use ediffi_core::files::write_with_folders;
use ediffi_train::run::Begin;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::normalizers::{Lowercase, NFC, NFKC, Sequence};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, DecoderWrapper, Model, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    SplitDelimiterBehavior, Tokenizer, TokenizerBuilder,
};
use train_icons::split::Split as Part;

use super::Result;
use super::batches::Data;

/// A tokenizer that training begins with.
pub struct Vocabulary {
    /// The shipped model's. Training a tokenizer twice gives other tokens, because the order of sums varies. So they are part of the
    /// plan, and a plan gives the same weights again.
    shipped: &'static str,
    /// Trains another on captions and writes it to a path.
    train: fn(&[String], &Path) -> Result<i64>,
}

/// T5's.
pub const T5: Vocabulary =
    Vocabulary { shipped: include_str!("../../../../models/icons/t5/tokenizer.json"), train: t5 };

/// CLIP's.
pub const CLIP: Vocabulary =
    Vocabulary { shipped: include_str!("../../../../models/icons/clip/tokenizer.json"), train: clip };

/// Puts the tokenizer into `path`, and says how many tokens it has: the shipped model's, or one that is trained on `captions`. One that is
/// there is kept unless the training begins anew.
pub fn begin(begin: Begin, path: &Path, vocabulary: &Vocabulary, captions: Option<&[String]>) -> Result<i64> {
    if begin != Begin::Restart && path.is_file() {
        return size(path);
    }
    match captions {
        Some(captions) => (vocabulary.train)(captions, path),
        None => {
            write_with_folders(path, vocabulary.shipped.as_bytes())?;
            size(path)
        }
    }
}

/// What new tokenizers are trained on: captions of their own seed.
pub fn captions(Data { sampler, seed, .. }: &Data) -> Result<Vec<String>> {
    (0..20_000).map(|index| Ok(sampler.scene(seed ^ 0x7E47, index, Part::Train)?.caption)).collect()
}

/// CLIP's pattern of words (Radford et al. 2021, the published tokenizer).
const CLIP_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

fn special(text: &str) -> AddedToken {
    AddedToken::from(text.to_owned(), true)
}

/// Trains T5's kind of tokenizer (SentencePiece unigrams, ids 0 padding, 1 end, 2 unknown) and writes `tokenizer.json`.
pub fn t5(captions: &[String], path: &Path) -> Result<i64> {
    let mut trainer = UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size(400)
        .unk_token(Some("<unk>".to_owned()))
        .special_tokens(["<pad>", "</s>", "<unk>"].map(special).to_vec())
        .build()?;
    let mut tokenizer =
        TokenizerBuilder::<Unigram, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>::new(
        )
        .with_model(Unigram::default())
        .with_normalizer(Some(Sequence::new(vec![NFKC.into(), Lowercase.into()]).into()))
        .with_pre_tokenizer(Some(Metaspace::new('▁', PrependScheme::Always, true).into()))
        .with_post_processor(None)
        .with_decoder(None)
        .build()?;
    tokenizer.train(&mut trainer, captions.iter())?;
    finish(&tokenizer, path)
}

/// Trains CLIP's kind of tokenizer (byte pairs with `</w>`) and writes `tokenizer.json`.
pub fn clip(captions: &[String], path: &Path) -> Result<i64> {
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(400)
        .special_tokens(["<|startoftext|>", "<|endoftext|>"].map(special).to_vec())
        .end_of_word_suffix("</w>".to_owned())
        .build();
    let model = BPE::builder().unk_token("<|endoftext|>".to_owned()).end_of_word_suffix("</w>".to_owned()).build()?;
    let words = Split::new(SplitPattern::Regex(CLIP_WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    let mut tokenizer =
        TokenizerBuilder::<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>::new()
            .with_model(model)
            .with_normalizer(Some(Sequence::new(vec![NFC.into(), Lowercase.into()]).into()))
            .with_pre_tokenizer(Some(words.into()))
            .with_post_processor(None)
            .with_decoder(None)
            .build()?;
    tokenizer.train(&mut trainer, captions.iter())?;
    finish(&tokenizer, path)
}

fn finish<M: Model + serde::Serialize>(
    tokenizer: &tokenizers::TokenizerImpl<
        M,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >,
    path: &Path,
) -> Result<i64> {
    write_with_folders(path, tokenizer.to_string(true)?.as_bytes())?;
    size(path)
}

/// Number of tokens of the tokenizer in `path`.
pub fn size(path: &Path) -> Result<i64> {
    Ok(i64::try_from(Tokenizer::from_file(path)?.get_vocab_size(true))?)
}

#[cfg(test)]
mod tests {
    use ediffi_encoders::tokenizer::TextTokenizer;

    use super::*;

    fn words() -> Vec<String> {
        let things = ["apple", "cat", "star", "moon", "house"];
        let colours = ["red", "blue", "green"];
        let caption = |i: usize| format!("a {} {} left of a {}", colours[i % 3], things[i % 5], things[(i / 5) % 5]);
        (0..75).map(caption).collect()
    }

    #[test]
    fn the_shipped_tokenizers_are_part_of_the_plan_and_one_that_is_there_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        for (name, vocabulary) in [("t5", T5), ("clip", CLIP)] {
            let path = folder.path().join(name).join("tokenizer.json");
            let shipped = format!("{}/../../models/icons/{name}/tokenizer.json", env!("CARGO_MANIFEST_DIR"));
            let count = begin(Begin::Resume, &path, &vocabulary, None).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&shipped).unwrap());
            assert_eq!(count, size(Path::new(&shipped)).unwrap());
        }
        let path = folder.path().join("own.json");
        let own = begin(Begin::Resume, &path, &CLIP, Some(&words())).unwrap();
        assert_eq!(begin(Begin::Resume, &path, &CLIP, None).unwrap(), own);
        assert_ne!(begin(Begin::Restart, &path, &CLIP, None).unwrap(), own);
    }

    /// The ids that T5 and its configuration agree on: 0 fills, 1 ends, 2 is unknown.
    #[test]
    fn t5_s_tokenizer_has_the_published_special_ids_and_reads_any_case() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let count = t5(&words(), &path).unwrap();
        assert!(count <= 400 && count == size(&path).unwrap());
        let raw = Tokenizer::from_file(&path).unwrap();
        assert_eq!(["<pad>", "</s>", "<unk>"].map(|t| raw.token_to_id(t)), [Some(0), Some(1), Some(2)]);
        let tokenizer = TextTokenizer::t5(&path, 1, 0, count).unwrap();
        let ids = tokenizer.encode(&["a red apple", "A Red APPLE", "a blue cat"], 16).unwrap().ids;
        assert_eq!(ids.get(0), ids.get(1));
        assert_ne!(ids.get(0), ids.get(2));
        let unknown = ids.eq(2).any().int64_value(&[]);
        assert_eq!(unknown, 0, "a word of the captions is unknown");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn clip_s_tokenizer_starts_and_ends_a_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let count = clip(&words(), &path).unwrap();
        let tokenizer = TextTokenizer::clip(&path, count, 16).unwrap();
        let ids = tokenizer.encode(&["a red apple"], 16).unwrap().ids;
        let ids = Vec::<i64>::try_from(ids.get(0)).unwrap();
        // A frequent word is one token: start, three words, end.
        assert_eq!((ids[0], ids[4]), (0, tokenizer.end()));
        assert!(ids[1..4].iter().all(|&id| id > 1), "{ids:?}");
    }
}
