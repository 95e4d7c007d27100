# make demo   builds, and answers a question about a picture with the built-in model
# make test   everything that is checked before a change goes in
.PHONY: demo test

demo:
	@tools/setup.sh cc
	@tools/demo.sh

test:
	@tools/setup.sh cc ffmpeg python node
	@tools/test.sh
