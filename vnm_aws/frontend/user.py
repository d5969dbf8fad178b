"""Be the user whom the front-end half runs as, whoever has started it."""

from __future__ import annotations

import os
import resource

from ..errors import AwsOvsError


def become_owner(directory: str) -> None:
    """Become, as root, the owner of the state directory: what root leaves there, oneadmin's next run could not change.

    Credentials are found as that user finds them, and a crash leaves none of them behind in a core file.

    Raises:
        AwsOvsError: root has started this and there is no such directory, or it is nobody's.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() != 0:
        return
    import pwd  # costs time, and only root needs it

    try:
        owner = os.stat(directory).st_uid
        user = pwd.getpwuid(owner)
    except FileNotFoundError:
        what = f"root would make the state directory {directory}, and nobody else could write there"
        raise AwsOvsError(what, f"make it: install -d -o oneadmin -g oneadmin -m 750 {directory}") from None
    except NotADirectoryError:
        return  # whoever needs it says so
    except KeyError:
        what = f"the state directory {directory} belongs to user {owner}, whom this machine does not know"
        raise AwsOvsError(what, f"give it to oneadmin: chown oneadmin: {directory}") from None
    if owner != 0:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(owner)
        os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
