################################################################################
#
# testflinger-agent
#
################################################################################

TESTFLINGER_AGENT_VERSION = 0.1.0
# The sources that this directory lies in.
TESTFLINGER_AGENT_SITE = $(BR2_EXTERNAL_TESTFLINGER_AGENT_PATH)/../..
TESTFLINGER_AGENT_SITE_METHOD = local
TESTFLINGER_AGENT_LICENSE = MIT or Apache-2.0
TESTFLINGER_AGENT_LICENSE_FILES = LICENSE
TESTFLINGER_AGENT_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude /target

# Buildroot builds without the network, and fetches the crates of what it downloads
# itself only.
define TESTFLINGER_AGENT_FETCH_CRATES
	cd $(@D) && $(HOST_MAKE_ENV) $(PKG_CARGO_ENV) cargo fetch --locked
endef
TESTFLINGER_AGENT_PRE_BUILD_HOOKS += TESTFLINGER_AGENT_FETCH_CRATES

# The line goes into the inittab that busybox brings.
ifeq ($(BR2_INIT_BUSYBOX),y)
TESTFLINGER_AGENT_DEPENDENCIES += busybox
endif

define TESTFLINGER_AGENT_INSTALL_FOR
	DESTDIR=$(TARGET_DIR) PREFIX=/usr INIT=$(1) BINARY=$(TARGET_DIR)/usr/bin/testflinger-agent \
		sh $(@D)/cross/install/install.sh
endef

define TESTFLINGER_AGENT_INSTALL_INIT_SYSV
	$(call TESTFLINGER_AGENT_INSTALL_FOR,busybox)
endef

define TESTFLINGER_AGENT_INSTALL_INIT_SYSTEMD
	$(call TESTFLINGER_AGENT_INSTALL_FOR,systemd)
endef

define TESTFLINGER_AGENT_INSTALL_INIT_OPENRC
	$(call TESTFLINGER_AGENT_INSTALL_FOR,openrc)
endef

$(eval $(cargo-package))
