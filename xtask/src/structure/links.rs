//! Links between the pages.

use super::sources::{Sources, folder_of, join};

/// One line for each relative link of a page that leads to no file, or to no heading of the page it names.
pub(crate) fn dead_links(sources: &Sources) -> Vec<String> {
    let mut lines = Vec::new();
    for (page, text) in sources.ending(".md") {
        let text = without_code(text);
        for link in links(&text) {
            if let Some(problem) = problem(sources, page, link) {
                lines.push(format!("{page}: link to {link}: {problem}"));
            }
        }
    }
    lines
}

fn problem(sources: &Sources, page: &str, link: &str) -> Option<&'static str> {
    if link.contains(':') {
        // Another place: https:, mailto:.
        return None;
    }
    let (path, heading) = link.split_once('#').map_or((link, None), |(path, heading)| (path, Some(heading)));
    let target = if path.is_empty() { Some(page.to_owned()) } else { join(folder_of(page), path) };
    let Some(target) = target.filter(|target| sources.exists(target)) else { return Some("there is no such file") };
    let heading = heading.filter(|_| target.ends_with(".md"))?;
    let has_it = without_code(sources.text(&target)?).lines().any(|line| anchor(line).as_deref() == Some(heading));
    (!has_it).then_some("there is no such heading")
}

/// What stands in the brackets of `[text](link)` and `![text](picture)`, titles left out.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let ends = text.split("](").skip(1).filter_map(|after| after.split_once(')'));
    ends.filter_map(|(link, _)| link.split_whitespace().next())
}

/// The anchor that GitHub gives to a heading; `None` for any other line.
fn anchor(line: &str) -> Option<String> {
    let title = line.trim_start_matches('#');
    let title = title.strip_prefix(' ').filter(|_| line.starts_with('#'))?;
    let kept = title.trim().to_lowercase().replace(' ', "-");
    Some(kept.chars().filter(|&c| c.is_alphanumeric() || c == '-' || c == '_').collect())
}

/// The text without the blocks between ``` and what stands between ` in a line.
fn without_code(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            let is_heading = line.starts_with('#');
            for (part, text) in line.split('`').enumerate() {
                // A heading's code is part of its anchor.
                kept.push_str(if part % 2 == 0 || is_heading { text } else { "" });
            }
        }
        kept.push('\n');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Vec<String> {
        let other = "# Top\n## The `open` tail, σ\n```sh\n# not a heading\n```\n";
        dead_links(&Sources::from([("docs/a.md", text), ("docs/b.md", other), ("x/c.png", ""), ("README.md", "")]))
    }

    #[test]
    fn links_lead_to_files_folders_and_headings() {
        let text = "[a](b.md) ![b](../x/c.png \"title\") [c](../x) [d](https://x.y/z#w) [e](#here) [f](b.md#top)
            [g](b.md#the-open-tail-σ) [h](../README.md)\n# Here\n`[i](gone.md)` [`j`](b.md)\n```\n[k](gone.md)\n```";
        assert_eq!(check(text), [""; 0]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (text, problem) in [
            ("[a](gone.md)", "docs/a.md: link to gone.md: there is no such file"),
            ("[a\nb](../../b.md)", "docs/a.md: link to ../../b.md: there is no such file"),
            ("[a](b.md#bottom)", "docs/a.md: link to b.md#bottom: there is no such heading"),
            ("[a](b.md#not-a-heading)", "docs/a.md: link to b.md#not-a-heading: there is no such heading"),
            ("[a](#top)", "docs/a.md: link to #top: there is no such heading"),
        ] {
            assert_eq!(check(text), [problem]);
        }
    }
}
