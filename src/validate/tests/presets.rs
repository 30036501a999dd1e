//! Settings that a request asks for by name.

use super::*;

#[test]
fn a_preset_that_is_not_there_is_named() {
    let found = problems(&a().preset("fsat").images(0));
    let unknown = Problem::UnknownPreset { name: "fsat".to_owned(), presets: vec!["fast".to_owned()] };
    assert_eq!(found, [unknown, Problem::NoImages]);
    assert_eq!(found[0].to_string(), "there is no preset `fsat`: only fast");
}

#[test]
fn a_preset_stands_between_the_request_and_the_model() {
    let stages = cascade(TEXT);
    let resolved = |request: &Request| preset::resolved(request, &presets(), &stages).unwrap().into_owned();
    let steps = |request: &Request| {
        let resolved = resolved(request);
        stages.iter().map(|stage| stage.settings.patched(resolved.stages.get(&stage.name)).steps).collect::<Vec<_>>()
    };
    assert_eq!(steps(&a()), [5, 5, 5]);
    let request = a().preset("fast").steps("sr-256", 9);
    assert_eq!(steps(&request), [3, 9, 1]);
    assert_eq!(resolved(&resolved(&request)), resolved(&request));
    // Later stages do not run, which is no fault of the request.
    let base = a().preset("fast").last_stage("base");
    assert_eq!(problems(&base), []);
    assert_eq!(resolved(&base).stages.keys().collect::<Vec<_>>(), ["base"]);
}

#[test]
fn the_whole_guidance_of_a_request_stands_above_the_scale_of_a_preset() {
    let mut strong = SettingsPreset::new("");
    strong.stages.insert("base".to_owned(), Request::new("").guidance("base", 9.0).stages["base"].clone());
    let presets = BTreeMap::from([("strong".to_owned(), strong)]);
    let scale = |request: &Request| {
        let stages = cascade(TEXT);
        let resolved = preset::resolved(request, &presets, &stages).unwrap();
        stages[0].settings.patched(resolved.stages.get("base")).guidance.scale
    };
    assert_eq!(scale(&a().preset("strong")), 9.0);
    assert_eq!(scale(&a().preset("strong").guidance_rule("base", Guidance::new(2.0))), 2.0);
}

#[test]
fn limits_hold_for_the_steps_of_a_preset() {
    let (stages, presets) = (&cascade(TEXT), &presets());
    let limits = &Limits { steps: 2, ..Limits::default() };
    let abilities =
        Abilities { stages, image: ImageSource::Style, presets, needs: TEXT, encoders: None, limits, drawing: DRAWING };
    let Err(Error::InvalidRequest { problems }) = validate(&a().preset("fast"), abilities, || Ok(Vec::new())) else {
        panic!("it is refused");
    };
    assert!(matches!(&problems[..], [Problem::Limit { name: "steps", value: 3, .. }]), "{problems:?}");
}
