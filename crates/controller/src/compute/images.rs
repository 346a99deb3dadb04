//! What a member's machine may boot. Agents open files as root, so it lies where an administrator has put it. Pure: the files are
//! on the compute bricks, and nobody looks at them here.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rackmem_api::Problem;
use rackmem_api::agent::Boot;
use rackmem_api::controller::{Role, Who};
use rackmem_api::problem::ProblemType;

/// What all projects may read, beside the directories of the projects.
const PUBLIC: &str = "public";

/// The directory on compute bricks below which the images of members lie: one directory a project, and `public`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images(PathBuf);

/// The text names no directory of images.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no directory of images: write an absolute path, as the compute bricks have it, without '.' and '..'"
)]
pub struct ParseImagesError(String);

impl FromStr for Images {
    type Err = ParseImagesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_plain(Path::new(text)) { Ok(Self(text.into())) } else { Err(ParseImagesError(text.to_owned())) }
    }
}

/// Refuses files that `who` may not have a machine of `project` open. Administrators may name any.
pub(crate) fn check(images: Option<&Images>, who: &Who, project: &str, boot: &Boot) -> Result<(), Problem> {
    if who.role == Role::Admin {
        return Ok(());
    }
    let Boot { kernel, initrd, append: _, disks, cloud_init } = boot;
    let read = [("kernel", kernel), ("initrd", initrd)];
    let read = read.into_iter().filter_map(|(what, path)| Some((what, path.as_ref()?, true)));
    let own = disks.iter().map(|path| ("disks", path, false));
    let own = own.chain(cloud_init.iter().map(|path| ("cloud_init", path, false)));
    read.chain(own).try_for_each(|(what, path, is_only_read)| {
        let shown = format!("boot.{what} '{}'", path.display());
        let Some(images) = images else {
            let detail = format!(
                "{shown}: members may not name files of a brick, since this controller has no directory of images: an \
                 administrator can make the machine, or start the controller with --images DIRECTORY"
            );
            return Err(Problem::new(ProblemType::Forbidden, detail));
        };
        if !is_plain(path) {
            let detail = format!("{shown}: write an absolute path without '.' and '..'");
            return Err(Problem::new(ProblemType::Invalid, detail));
        }
        let places = images.of(project, is_only_read);
        if places.iter().any(|place| path != place && path.starts_with(place)) {
            return Ok(());
        }
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        let allowed = if places.is_empty() { "nowhere".to_owned() } else { format!("below {}", places.join(" or ")) };
        let detail = format!(
            "{shown} is not for the project '{project}', whose images lie {allowed}: ask the administrator to put it there"
        );
        Err(Problem::new(ProblemType::Forbidden, detail))
    })
}

impl Images {
    /// Below which directories the images of a project lie. One whose name could be no directory, or is that for all, has none of its own.
    fn of(&self, project: &str, is_only_read: bool) -> Vec<PathBuf> {
        let is_directory = !matches!(project, "" | "." | ".." | PUBLIC) && !project.contains('/');
        let own = is_directory.then(|| self.0.join(project));
        own.into_iter().chain(is_only_read.then(|| self.0.join(PUBLIC))).collect()
    }
}

/// Whether a path leads where it reads.
fn is_plain(path: &Path) -> bool {
    let mut parts = path.as_os_str().as_encoded_bytes().split(|byte| *byte == b'/');
    path.is_absolute() && parts.all(|part| part != b"." && part != b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(role: Role) -> Who {
        Who { name: "alice".to_owned(), role, project: Some("p1".to_owned()) }
    }

    fn told(images: Option<&str>, project: &str, boot: &str) -> Result<(), (u16, String)> {
        let (images, boot) = (images.map(|text| text.parse().unwrap()), serde_json::from_str(boot).unwrap());
        let told = check(images.as_ref(), &who(Role::Member), project, &boot);
        told.map_err(|problem| (problem.status, problem.detail))
    }

    #[test]
    fn a_members_images_lie_in_the_projects_directory() {
        for boot in [
            r#"{"kernel": "/images/p1/k", "initrd": "/images/p1/a/b", "disks": ["/images/p1/d", "/images//p1/e"], "cloud_init": "/images/p1/seed"}"#,
            r#"{"kernel": "/images/public/k", "initrd": "/images/public/i", "append": "root=/dev/sda/../sdb"}"#,
            "{}",
        ] {
            assert_eq!(told(Some("/images"), "p1", boot), Ok(()), "{boot}");
            assert_eq!(told(Some("/images/"), "p1", boot), Ok(()), "{boot}");
        }
        assert_eq!(told(None, "p1", "{}"), Ok(()), "it names nothing");
    }

    #[test]
    fn everything_else_is_refused_with_its_place() {
        for (status, boot) in [
            (403, r#"{"kernel": "/etc/shadow"}"#),
            (403, r#"{"kernel": "/images/p2/k"}"#),
            (403, r#"{"kernel": "/images/p1"}"#),
            (403, r#"{"kernel": "/images/p1/"}"#),
            (403, r#"{"kernel": "/images/p10/k"}"#),
            (403, r#"{"kernel": "/images/k"}"#),
            (403, r#"{"initrd": "/images/publicity/i"}"#),
            (403, r#"{"disks": ["/images/p1/d", "/images/public/d"]}"#),
            (403, r#"{"cloud_init": "/images/public/seed"}"#),
            (422, r#"{"kernel": "/images/p1/../p2/k"}"#),
            (422, r#"{"disks": ["/images/p1/./d"]}"#),
            (422, r#"{"cloud_init": "images/p1/seed"}"#),
            (422, r#"{"initrd": "/images/p1/.."}"#),
            (422, r#"{"kernel": ""}"#),
        ] {
            let (answered, detail) = told(Some("/images"), "p1", boot).unwrap_err();
            assert!(answered == status && detail.starts_with("boot."), "{boot}: {answered} {detail}");
        }
        let (status, detail) = told(None, "p1", r#"{"kernel": "/images/p1/k"}"#).unwrap_err();
        assert!(status == 403 && detail.contains("--images"), "{detail}");
    }

    #[test]
    fn a_project_whose_name_is_no_directory_has_only_what_is_for_all() {
        for project in ["", ".", "..", "public", "p1/../p2", "/etc"] {
            for disk in ["/images/d", "/images/public/d", "/etc/d", "/images/p2/d"] {
                let boot = format!(r#"{{"disks": ["{disk}"]}}"#);
                assert_eq!(told(Some("/images"), project, &boot).unwrap_err().0, 403, "{project}: {disk}");
            }
            assert_eq!(told(Some("/images"), project, r#"{"kernel": "/images/public/k"}"#), Ok(()));
        }
    }

    #[test]
    fn an_administrator_may_name_any_file() {
        let boot = serde_json::from_str(r#"{"kernel": "/k", "disks": ["../d"]}"#).unwrap();
        assert_eq!(check(None, &who(Role::Admin), "p1", &boot), Ok(()));
    }

    #[test]
    fn the_directory_is_written_as_it_is() {
        for text in ["", "images", "./images", "/images/..", "/./images"] {
            assert!(text.parse::<Images>().is_err(), "{text}");
        }
    }
}
