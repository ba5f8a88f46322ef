"""Container images of one commit."""

from __future__ import annotations

from launcher.commands import Commands, LaunchError
from launcher.git_state import Checkout


def build_image(repository: str, platform: str, checkout: Checkout, commands: Commands) -> str:
    """Build `launch/docker/PLATFORM.Dockerfile` from HEAD and return the image's name.

    Args:
      repository: image repository, such as us-docker.pkg.dev/PROJECT/images/lidit.
      platform: "tpu" or "cuda".
      checkout: what goes into the image.
      commands: runs docker.

    Raises:
      LaunchError: when docker is missing or the build fails.
    """
    commands.require("docker", "https://docs.docker.com/engine/install")
    image = f"{repository}:{platform}-{checkout.short}"
    with checkout.archive() as context:
        dockerfile = f"launch/docker/{platform}.Dockerfile"
        build = ("docker", "build", f"--file={dockerfile}", f"--tag={image}", "-")
        if commands.stream(*build, stdin=context):
            raise LaunchError(f"{image} could not be built: see docker's messages above")
    return image
