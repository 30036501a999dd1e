//! The fields of OpenAI's interface: what each does, and which do nothing.

use ediffi::Request;

use super::format::Format;
use crate::fields::{Fields, Wrong, brief};
use crate::partial::Partial;

/// Fields that change nothing. Nothing is moderated here, and nobody is reported.
const WITHOUT_EFFECT: [&str; 3] = ["user", "safety_identifier", "moderation"];

/// Fields that ask for what there is not.
const REFUSED: [(&str, &str); 7] = [
    ("style", "describe the style in the prompt, or take it from pictures with `ediffi.style`"),
    ("input_fidelity", "say with `ediffi.strength` how much is drawn anew, from 0 to 1"),
    ("complexity", "there is no such setting"),
    ("svg", "pictures are made of pixels"),
    ("frame_count", "pictures do not move"),
    ("frame_duration_ms", "pictures do not move"),
    ("markup", "paint words with `ediffi.canvas`, or what to draw anew with `mask`"),
];

/// The preset that `quality: low` asks for.
const FAST: &str = "fast";

const LONGEST_PROMPT: usize = 32_000;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Generation,
    Edit,
    Variation,
}

/// The fields of a request.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) task: Task,
    pub(super) model: Option<String>,
    prompt: Option<String>,
    images: usize,
    size: Option<(u32, u32)>,
    pub(super) format: Format,
    /// Answer with links, not with pictures.
    pub(super) links: bool,
    pub(super) stream: bool,
    pub(super) partial_images: usize,
    /// Whether the settings of the preset [`FAST`] are asked for.
    low: bool,
    pub(super) partial: Partial,
}

impl Settings {
    /// Reads all fields but pictures.
    pub(super) fn read(mut fields: Fields, task: Task) -> Result<Self, Wrong> {
        let taken = [("images", "n"), ("width", "size"), ("height", "size"), ("edit", "image"), ("prompt", "prompt")];
        // A variation has no field for a prompt, and a picture to edit may stand in a JSON body.
        let taken: Vec<_> = taken
            .into_iter()
            .filter(|(key, _)| match task {
                Task::Generation => *key != "edit",
                Task::Edit => true,
                Task::Variation => *key != "prompt",
            })
            .collect();
        let partial = Partial::read(&mut fields, &taken, task != Task::Generation)?;
        let prompt = if task == Task::Variation { None } else { fields.text("prompt")? };
        if let Some(prompt) = prompt.as_ref().filter(|prompt| prompt.chars().count() > LONGEST_PROMPT) {
            let length = prompt.chars().count();
            return Err(Wrong::value(
                "prompt",
                format!("`prompt` has {length} characters, at most {LONGEST_PROMPT} are read"),
            ));
        }
        if task != Task::Variation && prompt.is_none() && !partial.has("unconditional") {
            return Err(Wrong::missing("prompt"));
        }
        let stream = fields.flag("stream")?.unwrap_or(false);
        let partial_images = fields.integer("partial_images", 0..=3)?.unwrap_or(0);
        if partial_images > 0 && !stream {
            return Err(Wrong::value("partial_images", "`partial_images` needs `stream`"));
        }
        if fields.choice("background", &["transparent", "opaque", "auto"])? == Some("transparent") {
            return Err(Wrong::value("background", "`background` cannot be `transparent`: pictures are opaque"));
        }
        let quality = fields.choice("quality", &["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"])?;
        let format = format(&mut fields)?;
        let links = fields.choice("response_format", &["b64_json", "url"])? == Some("url");
        if links && (stream || format != Format::Png) {
            return Err(Wrong::value("response_format", "`url` is the address of a PNG file, and not for streams"));
        }
        let settings = Self {
            task,
            model: fields.text("model")?,
            prompt,
            images: fields.integer("n", 1..=10)?.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            size: size(&mut fields)?,
            format,
            links,
            stream,
            partial_images: usize::try_from(partial_images).unwrap_or(0),
            low: quality == Some("low"),
            partial,
        };
        fields.without_effect(&WITHOUT_EFFECT);
        fields.refuse(&REFUSED)?;
        fields.finish()?;
        Ok(settings)
    }

    /// Whether the preset of low quality is asked for and there, among these.
    pub(super) fn is_low(&self, presets: &[crate::model::PresetInfo]) -> bool {
        self.low && !self.partial.has("preset") && presets.iter().any(|preset| preset.name == FAST)
    }

    /// What to draw, without its pictures. `low`: with the preset of low quality.
    pub(super) fn request(&mut self, low: bool) -> Result<Request, Wrong> {
        let mut request = std::mem::take(&mut self.partial).request(self.prompt.take())?.images(self.images);
        (request.width, request.height) = (self.size.map(|size| size.0), self.size.map(|size| size.1));
        if low {
            request = request.preset(FAST);
        }
        if self.task == Task::Variation && request.prompt.trim().is_empty() {
            request.unconditional = true;
        }
        Ok(request)
    }
}

fn format(fields: &mut Fields) -> Result<Format, Wrong> {
    let name = fields.choice("output_format", &["png", "webp", "jpeg"])?.unwrap_or("png");
    let compression = fields.integer("output_compression", 0..=100)?;
    match name {
        "jpeg" => Ok(Format::Jpeg(compression.and_then(|quality| u8::try_from(quality).ok()).unwrap_or(100).max(1))),
        // It is without loss, whatever is asked.
        "webp" => Ok(Format::WebP),
        _ if compression.is_some_and(|compression| compression != 100) => {
            Err(Wrong::value("output_compression", "`output_compression` is for `jpeg` and `webp`"))
        }
        _ => Ok(Format::Png),
    }
}

/// `auto` is the size of the model, or of the given picture.
fn size(fields: &mut Fields) -> Result<Option<(u32, u32)>, Wrong> {
    let Some(text) = fields.text("size")?.filter(|text| text != "auto") else { return Ok(None) };
    let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    let wrong = || Wrong::value("size", format!("`size` is `{}`: it is `auto`, or as `1024x1024`", brief(&text)));
    sides.map(Some).ok_or_else(wrong)
}

fn side(text: &str) -> Option<u32> {
    text.parse().ok().filter(|side| *side > 0 && text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PresetInfo;

    fn read(json: &str) -> Result<Settings, Wrong> {
        Settings::read(Fields::of_json(json.as_bytes()).unwrap(), Task::Generation)
    }

    #[test]
    fn each_field_is_read() {
        let json = r#"{"prompt": "a cat", "model": "icons", "n": 3, "size": "1024x512", "quality": "low", "background": "opaque",
            "output_format": "jpeg", "output_compression": 70, "moderation": "low", "user": "u", "stream": true,
            "partial_images": 2, "response_format": "b64_json", "ediffi": {"seed": 7, "last_stage": "base"}}"#;
        let mut settings = read(json).unwrap();
        assert_eq!(settings.model.as_deref(), Some("icons"));
        assert_eq!((settings.format, settings.stream, settings.partial_images), (Format::Jpeg(70), true, 2));
        let preset = |name: &str| PresetInfo { name: name.to_owned(), description: String::new() };
        assert!(settings.is_low(&[preset("other"), preset("fast")]) && !settings.is_low(&[preset("other")]));
        let expected = Request::new("a cat").seed(7).images(3).size(1024, 512).last_stage("base").preset("fast");
        assert_eq!(settings.request(true).unwrap(), expected);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (fields, field, code) in [
            (r#""n": 0"#, "n", "invalid_value"),
            (r#""n": 11"#, "n", "invalid_value"),
            (r#""size": "big""#, "size", "invalid_value"),
            (r#""size": "0x64""#, "size", "invalid_value"),
            (r#""size": "+64x64""#, "size", "invalid_value"),
            (r#""size": 64"#, "size", "invalid_type"),
            (r#""background": "transparent""#, "background", "invalid_value"),
            (r#""background": "green""#, "background", "invalid_value"),
            (r#""output_format": "gif""#, "output_format", "invalid_value"),
            (r#""output_compression": 50"#, "output_compression", "invalid_value"),
            (r#""output_format": "webp", "output_compression": 101"#, "output_compression", "invalid_value"),
            (r#""quality": "best""#, "quality", "invalid_value"),
            (r#""partial_images": 1"#, "partial_images", "invalid_value"),
            (r#""stream": true, "partial_images": 4"#, "partial_images", "invalid_value"),
            (r#""stream": true, "response_format": "url""#, "response_format", "invalid_value"),
            (r#""style": "vivid""#, "style", "unsupported_parameter"),
            (r#""input_fidelity": "high""#, "input_fidelity", "unsupported_parameter"),
            (r#""negative_prompt": "blur""#, "negative_prompt", "unknown_parameter"),
            (r#""ediffi": {"images": 2}"#, "ediffi.images", "invalid_value"),
            (r#""ediffi": {"sed": 2}"#, "ediffi", "invalid_value"),
        ] {
            let json = format!(r#"{{"prompt": "a cat", {fields}}}"#);
            let wrong = read(&json).and_then(|mut settings| settings.request(false)).unwrap_err();
            assert_eq!((wrong.field.as_deref(), wrong.code), (Some(field), code), "{json}: {}", wrong.message);
        }
        assert_eq!(read("{}").unwrap_err(), Wrong::missing("prompt"));
        assert_eq!(read(&format!(r#"{{"prompt": "{}"}}"#, "é".repeat(32_001))).unwrap_err().code, "invalid_value");
    }
}
