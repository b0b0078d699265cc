# Prints the `service` block of a formula as JSON, without Homebrew: ruby packaging/formula-service.rb orphand.rb
require "json"

# A folder of Homebrew, to which the formula adds a name with `/`.
Folder = Struct.new(:path) do
  def /(name)
    "#{path}/#{name}"
  end

  alias_method :[], :/
end

# Records each line of the block: the word and its values.
class ServiceBlock < BasicObject
  attr_reader :lines

  def initialize
    @lines = {}
  end

  def opt_bin
    ::Folder.new("/opt/homebrew/opt/orphand/bin")
  end

  def var
    ::Folder.new("/opt/homebrew/var")
  end

  def method_missing(word, *values, **options)
    @lines[word] = options.empty? ? values.first : options
  end

  def respond_to_missing?(*)
    true
  end
end

# Ignores everything in a formula but `service`.
class Formula
  def self.service(&block)
    service = ServiceBlock.new
    service.instance_eval(&block)
    puts JSON.pretty_generate(service.lines)
  end

  # Ruby has a function with this name.
  def self.test; end

  def self.method_missing(*); end

  def self.respond_to_missing?(*)
    true
  end
end

load ARGV.fetch(0)
