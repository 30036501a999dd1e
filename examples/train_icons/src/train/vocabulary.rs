//! Small tokenizers trained on captions, in the published file formats.

use std::path::Path;

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::normalizers::{Lowercase, NFC, NFKC, Sequence};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, DecoderWrapper, Model, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    SplitDelimiterBehavior, Tokenizer, TokenizerBuilder,
};

use super::Result;

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
    let mut tokenizer = TokenizerBuilder::<
        Unigram,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >::new()
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
    let model = BPE::builder()
        .unk_token("<|endoftext|>".to_owned())
        .end_of_word_suffix("</w>".to_owned())
        .build()?;
    let words = Split::new(SplitPattern::Regex(CLIP_WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    let mut tokenizer = TokenizerBuilder::<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >::new()
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
    tokenizer.save(path, true)?;
    Ok(i64::try_from(Tokenizer::from_file(path)?.get_vocab_size(true))?)
}
